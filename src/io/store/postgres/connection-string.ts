/** libpq's connection strings, as URL or as keywords and values. SPEC: PostgreSQL documentation, libpq, Connection Strings. */
import { suggest } from "../../../core/base/suggest.ts";

/** libpq's parameters by their names; `dbname`, `user`, `host`, `sslmode` … */
export type Parameters = Readonly<Record<string, string>>;

export type ParsedConnection =
  | { readonly ok: true; readonly parameters: Parameters }
  /** INVARIANT: no message holds a value: one of them may be the password. */
  | { readonly ok: false; readonly message: string; readonly hint: string };

const FORMS = "write it as `postgres://USER@HOST/DATABASE?sslmode=verify-full`, or as `host=… dbname=… user=…`";

/** Reads `text`; what this program does not act on is refused by name, so that nobody believes it in force. */
export function parseConnectionString(text: string): ParsedConnection {
  const trimmed = text.trim();
  const found = /^postgres(?:ql)?:\/\//i.test(trimmed) ? fromUrl(trimmed) : fromKeywords(trimmed);
  if (found === null) {
    return { ok: false, message: "the connection string is malformed", hint: FORMS };
  }
  for (const [name, value] of Object.entries(found)) {
    const fault = parameterFault(name, value);
    if (fault !== null) {
      return { ok: false, ...fault };
    }
  }
  return { ok: true, parameters: found };
}

function fromUrl(text: string): Record<string, string> | null {
  const match = /^[a-z]+:\/\/(?:([^/?#]*)@)?([^/?#@]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(text);
  if (match === null) {
    return null;
  }
  const [, user = "", address = "", database = "", query = ""] = match;
  const place = /^(\[[0-9a-f:.%]+\]|[^:]*)(?::(\d*))?$/i.exec(address);
  if (place === null && !address.includes(",")) {
    return null;
  }
  const colon = user.indexOf(":");
  const pairs: [string, string][] = [
    ["user", colon < 0 ? user : user.slice(0, colon)],
    ["password", colon < 0 ? "" : user.slice(colon + 1)],
    ["host", place === null ? address : (place[1] ?? "").replace(/^\[|\]$/g, "")],
    ["port", place?.[2] ?? ""],
    ["dbname", database],
  ];
  for (const part of query.split("&").filter((one) => one !== "")) {
    const equals = part.indexOf("=");
    if (equals <= 0) {
      return null;
    }
    // libpq takes JDBC's `ssl=true` in URLs.
    const pair = [part.slice(0, equals), part.slice(equals + 1)] as [string, string];
    pairs.push(pair[0] === "ssl" && pair[1] === "true" ? ["sslmode", "require"] : pair);
  }
  try {
    const decoded = pairs.map(([name, value]) => [decodeURIComponent(name), decodeURIComponent(value)] as const);
    return Object.fromEntries(decoded.filter(([, value]) => value !== ""));
  } catch {
    return null;
  }
}

function fromKeywords(text: string): Record<string, string> | null {
  const found: Record<string, string> = Object.create(null);
  const pair = /\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)/sy;
  while (pair.lastIndex < text.length) {
    const match = pair.exec(text);
    if (match === null) {
      return null;
    }
    const value = (match[2] ?? match[3] ?? "").replaceAll(/\\(.)/gs, "$1");
    if (value !== "") {
      found[match[1] ?? ""] = value;
    }
  }
  return text === "" ? null : found;
}

export const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;
export type SslMode = (typeof SSL_MODES)[number];

/** What is acted on; a pattern where not every value is. */
const KNOWN: Readonly<Record<string, RegExp>> = {
  host: /^[^,]+$/,
  hostaddr: /^[^,]+$/,
  port: /^\d{1,5}$/,
  dbname: /^/,
  user: /^/,
  password: /^/,
  connect_timeout: /^\d{1,4}$/,
  application_name: /^/,
  options: /^/,
  sslmode: new RegExp(`^(${SSL_MODES.join("|")})$`),
  sslrootcert: /^/,
  sslcert: /^/,
  sslkey: /^/,
  sslpassword: /^/,
  sslnegotiation: /^(postgres|direct)$/,
  channel_binding: /^(disable|prefer)$/,
};

/** What asks for what is done anyway, or makes no difference here. */
const HARMLESS: Readonly<Record<string, RegExp>> = {
  fallback_application_name: /^/,
  client_encoding: /^(auto|utf-?8|unicode)$/i,
  target_session_attrs: /^(any|read-write|primary)$/,
  load_balance_hosts: /^disable$/,
  gssencmode: /^(disable|prefer)$/,
  sslcompression: /^0$/,
  sslsni: /^1$/,
  ssl_min_protocol_version: /^TLSv1(\.[012])?$/,
  keepalives: /^1$/,
  keepalives_idle: /^/,
  keepalives_interval: /^/,
  keepalives_count: /^/,
  tcp_user_timeout: /^/,
  // SPIRE's driver, lib/pq, has these of its own.
  binary_parameters: /^/,
  disable_prepared_binary_result: /^/,
};

const NAMES = [...Object.keys(KNOWN), ...Object.keys(HARMLESS)];

function parameterFault(name: string, value: string): { readonly message: string; readonly hint: string } | null {
  const allowed = Object.hasOwn(KNOWN, name) ? KNOWN[name] : Object.hasOwn(HARMLESS, name) ? HARMLESS[name] : undefined;
  if (allowed === undefined) {
    const near = suggest(name, NAMES);
    const shown = /^[a-z_]{1,40}$/i.test(name) ? `\`${name}\`` : "a parameter";
    const message = `${shown} in the connection string is not known`;
    return {
      message,
      hint: near === null ? `known are: ${Object.keys(KNOWN).join(", ")}` : `did you mean \`${near}\`?`,
    };
  }
  if (allowed.test(value)) {
    return null;
  }
  const several = name === "host" && value.includes(",");
  return {
    message: `the connection string's \`${name}\` has a value that is not supported`,
    hint: several ? "name one address that follows the primary" : `it has to match ${allowed.source}`,
  };
}
