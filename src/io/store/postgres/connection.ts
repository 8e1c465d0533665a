import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "node:tls";
import type { ClientConfig } from "pg";
import { EveryhopError } from "../../../core/base/errors.ts";
import { type Parameters, parseConnectionString, type SslMode } from "./connection-string.ts";

export interface ConnectOptions {
  /** libpq's connection string. */
  readonly connection: string;
  /** Holds the password alone; goes before the one in the string. */
  readonly passwordFile?: string;
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/** Where and how to connect. `place` is what messages say of it: no password, no user. */
export interface Connection {
  readonly config: ClientConfig;
  readonly place: string;
  /** `sslmode=prefer` or `allow`: without TLS where the server has none. */
  readonly plaintextToo: boolean;
}

/** libpq's environment, for what the string leaves open. */
const ENVIRONMENT: Readonly<Record<string, string>> = {
  host: "PGHOST",
  hostaddr: "PGHOSTADDR",
  port: "PGPORT",
  dbname: "PGDATABASE",
  user: "PGUSER",
  password: "PGPASSWORD",
  sslmode: "PGSSLMODE",
  sslrootcert: "PGSSLROOTCERT",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
};

const CONNECT_TIMEOUT_S = 5;
/** A statement that takes longer hangs: the database is frozen, or behind a network that swallows. */
const STATEMENT_MS = 10_000;

/** Errors: `config-invalid`; `file-missing` for a password or certificate file. INVARIANT: no message holds the password. */
export function readConnection({ connection, passwordFile, environment = process.env }: ConnectOptions): Connection {
  const parsed = parseConnectionString(connection);
  if (!parsed.ok) {
    throw new EveryhopError("config-invalid", parsed.message, { hint: parsed.hint });
  }
  const given: Record<string, string | undefined> = { ...parsed.parameters };
  if (passwordFile !== undefined) {
    given.password = readText(passwordFile, "the database's password").replace(/\r?\n$/, "");
  }
  for (const [name, variable] of Object.entries(ENVIRONMENT)) {
    given[name] ??= environment[variable] || undefined;
  }
  const { dbname, user = environment.USER ?? "postgres", password, application_name = "everyhop", options } = given;
  const host = given.hostaddr ?? given.host ?? "localhost";
  const port = Number(given.port ?? 5_432);
  const tls = tlsOf(given as Parameters, host);
  const config: ClientConfig = {
    host,
    port,
    user,
    database: dbname ?? user,
    // Without one the driver looks into ~/.pgpass, as libpq does.
    ...(password === undefined ? {} : { password }),
    application_name,
    ssl: tls.ssl,
    keepAlive: true,
    connectionTimeoutMillis: 1_000 * (Number(given.connect_timeout ?? 0) || CONNECT_TIMEOUT_S),
    query_timeout: STATEMENT_MS,
    statement_timeout: STATEMENT_MS,
    // A replica that freezes in the middle of a write must not hold the others up.
    idle_in_transaction_session_timeout: STATEMENT_MS,
    ...(options === undefined ? {} : { options }),
    ...(given.sslnegotiation === "direct" ? { sslnegotiation: "direct" as const } : {}),
    ...(given.channel_binding === "disable" ? {} : { enableChannelBinding: true }),
  };
  return { config, place: `\`${dbname ?? user}\` at ${place(host, port)}`, plaintextToo: tls.plaintextToo };
}

function place(host: string, port: number): string {
  return host.startsWith("/") ? `${host}/.s.PGSQL.${port}` : `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

const LOCAL = /^(\/|localhost$|127\.|::1$)/;

/**
 * libpq's modes, with one difference: where the string says nothing, a database on another machine has to prove itself
 * (`verify-full`) instead of being asked for TLS at best.
 */
function tlsOf(
  given: Parameters,
  host: string,
): { readonly ssl: false | ConnectionOptions; readonly plaintextToo: boolean } {
  const mode = (given.sslmode ?? (LOCAL.test(host) ? "prefer" : "verify-full")) as SslMode;
  // A unix socket has no TLS, whatever is asked for. SPEC: libpq, sslmode.
  if (mode === "disable" || host.startsWith("/")) {
    return { ssl: false, plaintextToo: false };
  }
  const { sslrootcert, sslcert, sslkey, sslpassword } = given;
  const ownAuthorities = sslrootcert !== undefined && sslrootcert !== "system";
  if (mode === "verify-ca" && !ownAuthorities) {
    throw new EveryhopError("config-invalid", "`sslmode=verify-ca` needs `sslrootcert`", {
      hint: "name the file of the database's CA, or use `sslmode=verify-full`",
    });
  }
  // SPEC: libpq: `require` with a root certificate is `verify-ca`.
  const verified = mode === "verify-ca" || mode === "verify-full" || (mode === "require" && ownAuthorities);
  const ssl: ConnectionOptions = {
    rejectUnauthorized: verified,
    minVersion: "TLSv1.2",
    ...(ownAuthorities ? { ca: readText(sslrootcert, "the database's CA") } : {}),
    ...(sslcert === undefined ? {} : { cert: readText(sslcert, "the client's certificate") }),
    ...(sslkey === undefined ? {} : { key: readText(sslkey, "the client's key") }),
    ...(sslpassword === undefined ? {} : { passphrase: sslpassword }),
    ...(verified && mode !== "verify-full" ? { checkServerIdentity: () => undefined } : {}),
    ...(given.hostaddr !== undefined && given.host !== undefined ? { servername: given.host } : {}),
  };
  return { ssl, plaintextToo: mode === "prefer" || mode === "allow" };
}

function readText(file: string, what: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read ${what}, \`${file}\`: ${(error as Error).message}`, {
      hint: "the user who runs the server has to be able to read it",
      cause: error,
    });
  }
}
