/**
 * What a field of a rule means, in the matchers that Istio's compiler makes of it. Regular expressions are what the
 * specification speaks of; here they may be slow.
 */
import type { Claims, Facts } from "./facts.ts";

const quote = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
const whole = (expression: string): RegExp => new RegExp(`^(?:${expression})$`, "s");
/** `.` in Envoy's expressions: anything but a line feed. */
const ANY = "[^\\n]";

const wire = (text: string): string => Buffer.from(text, "utf8").toString("latin1");

/** The four string forms. A star means something at one end only. */
export function stringMatches(pattern: string, value: string): boolean {
  if (pattern === "*") {
    return whole(`${ANY}+`).test(value);
  }
  if (pattern.startsWith("*")) {
    return value.endsWith(pattern.slice(1));
  }
  return pattern.endsWith("*") ? value.startsWith(pattern.slice(0, -1)) : value === pattern;
}

/** In headers `*` is presence, and an empty value is there. */
const headerMatches = (pattern: string, value: string): boolean =>
  pattern === "*" || stringMatches(wire(pattern), value);

/** `spiffe://` stands before the identity and is no part of what a star stands for. */
const principalMatches = stringMatches;

const namespaceMatches = (pattern: string, principal: string): boolean =>
  whole(`${ANY}*/ns/${pattern.split("*").map(quote).join(`${ANY}*`)}/${ANY}*`).test(`spiffe://${principal}`);

function serviceAccountMatches(pattern: string, principal: string, policyNamespace: string): boolean {
  const slash = pattern.indexOf("/");
  const [namespace, account] =
    slash === -1 ? [policyNamespace, pattern] : [pattern.slice(0, slash), pattern.slice(slash + 1)];
  const expression = `spiffe://${ANY}+/ns/${quote(namespace)}/(${ANY}+/|)sa/${quote(account)}(/${ANY}+)?`;
  return whole(expression).test(`spiffe://${principal}`);
}

function trustDomainMatches(pattern: string, principal: string): boolean {
  if (pattern === "*") {
    return true;
  }
  const [before = "", after] = pattern.split(/\*(.*)/s, 2);
  return after === undefined
    ? principal.startsWith(`${pattern}/`)
    : whole(`${quote(before)}[^/]*${quote(after)}/${ANY}*`).test(principal);
}

/** `cluster.local` and the mesh's own domains stand for all of them, in principals of five segments. */
export function expandPrincipals(patterns: readonly string[], domains: readonly string[]): string[] {
  return patterns.flatMap((pattern) => {
    const [domain = "", ...rest] = pattern.split("/");
    const names = (one: string, other: string): boolean =>
      one === other ||
      other === "*" ||
      (other.endsWith("*") && one.startsWith(other.slice(0, -1))) ||
      (other.startsWith("*") && one.endsWith(other.slice(1)));
    const isOurs = domain === "cluster.local" || domains.some((own) => names(own, domain) || names(domain, own));
    if (rest.length !== 4 || domain === "*" || !isOurs) {
      return [pattern];
    }
    return domains.map((own) =>
      domain.startsWith("*") && own.endsWith(domain.slice(1)) ? pattern : [own, ...rest].join("/"),
    );
  });
}

const expandDomains = (patterns: readonly string[], domains: readonly string[]): readonly string[] =>
  patterns.flatMap((pattern) => (domains.includes(pattern) ? domains : [pattern]));

/** Bits of an address or block: "4" or "6", then as many binary digits as count. */
function bits(text: string): string | null {
  const [address = "", length] = text.split("/");
  const bare = address.replace(/%.*$/, "");
  const family = bare.includes(":") ? 6 : 4;
  const all = family === 4 ? bits4(bare) : bits6(bare);
  return all === null ? null : family + all.slice(0, length === undefined ? undefined : Number(length));
}

const bits4 = (text: string): string | null =>
  /^\d{1,3}(\.\d{1,3}){3}$/.test(text) && text.split(".").every((part) => Number(part) <= 255)
    ? text
        .split(".")
        .map((part) => Number(part).toString(2).padStart(8, "0"))
        .join("")
    : null;

function bits6(text: string): string | null {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  const last = dotted === null ? "" : bits4(dotted[2] as string);
  if (last === null || !/^[0-9a-fA-F:.]+$/.test(text)) {
    return null;
  }
  const tail =
    dotted === null
      ? ""
      : `${Number.parseInt(last.slice(0, 16), 2).toString(16)}:${Number.parseInt(last.slice(16), 2).toString(16)}`;
  const plain = dotted === null ? text : `${dotted[1]}${tail}`;
  const [head = "", rest] = plain.split("::");
  const groups = (part: string): string[] => (part === "" ? [] : part.split(":"));
  const [left, right] = [groups(head), groups(rest ?? "")];
  const missing = 8 - left.length - right.length;
  if (rest === undefined ? missing !== 0 : missing < 0) {
    return null;
  }
  const every = [...left, ...new Array<string>(missing).fill("0"), ...right];
  return every.map((group) => Number.parseInt(group, 16).toString(2).padStart(16, "0")).join("");
}

export const isAddress = (text: string): boolean => !text.includes("/") && bits(text) !== null;

function addressMatches(block: string, address: string | null): boolean {
  const [want, have] = [bits(block), address === null ? null : bits(address)];
  return want !== null && have?.startsWith(want) === true;
}

const BYTES = "[a-zA-Z0-9\\-._~%!$&'()+,;:@=*]";

function pathMatches(pattern: string, path: string): boolean {
  if (!/\{\*\*?\}/.test(pattern)) {
    return stringMatches(wire(pattern), path);
  }
  const expression = pattern
    .split(/(\{\*\*?\})/)
    .map((part) => (part === "{*}" ? `${BYTES}+` : part === "{**}" ? `(?:${BYTES}|/)*` : quote(part)))
    .join("");
  return whole(expression).test(path);
}

/** The last slash parts issuer and subject. */
function requestPrincipalMatches(pattern: string, { iss, sub }: Claims): boolean {
  if (typeof iss !== "string" || typeof sub !== "string") {
    return false;
  }
  const slash = pattern.lastIndexOf("/");
  const [issuer, subject] = slash === -1 ? [pattern, ""] : [pattern.slice(0, slash), pattern.slice(slash + 1)];
  if (pattern === "*") {
    return stringMatches("*", iss) && stringMatches("*", sub);
  }
  if (pattern.startsWith("*")) {
    return slash === -1
      ? stringMatches("*", iss) && sub.endsWith(pattern.slice(1))
      : (issuer === "*" ? stringMatches("*", iss) : iss.endsWith(issuer.slice(1))) && sub === subject;
  }
  if (pattern.endsWith("*")) {
    return slash === -1
      ? iss.startsWith(pattern.slice(0, -1)) && stringMatches("*", sub)
      : iss === issuer && (subject === "*" ? stringMatches("*", sub) : sub.startsWith(subject.slice(0, -1)));
  }
  return iss === issuer && sub === subject;
}

/** A claim is a text, or any text of a list; nothing else matches anything. */
function claimMatches(pattern: string, claims: Claims, names: readonly string[]): boolean {
  const value = names.reduce<unknown>(
    (inside, name) =>
      typeof inside === "object" && inside !== null && !Array.isArray(inside) && Object.hasOwn(inside, name)
        ? (inside as Claims)[name]
        : undefined,
    claims,
  );
  return (Array.isArray(value) ? value : [value]).some((one) => typeof one === "string" && stringMatches(pattern, one));
}

export interface Context {
  readonly policyNamespace: string;
  readonly domains: readonly string[];
}

/** Whether a request is needed to ask for it. */
export const isHttpOnly = (key: string): boolean => /^(hosts|methods|paths|requestPrincipals|request\..*)$/.test(key);

/**
 * Whether one of `values` of a field (by its positive name) or condition key is met; null where the key means nothing
 * to Istio's compiler.
 */
export function meets(key: string, values: readonly string[], facts: Facts, context: Context): boolean | null {
  const { principal } = facts;
  const any = (matches: (value: string) => boolean, of: readonly string[] = values): boolean => of.some(matches);
  switch (key) {
    case "principals":
    case "source.principal":
      return (
        principal !== null &&
        any((value) => principalMatches(value, principal), expandPrincipals(values, context.domains))
      );
    case "namespaces":
    case "source.namespace":
      return principal !== null && any((value) => namespaceMatches(value, principal));
    case "serviceAccounts":
    case "source.serviceAccount":
      return principal !== null && any((value) => serviceAccountMatches(value, principal, context.policyNamespace));
    case "trustDomains":
    case "source.trustDomain":
      return (
        principal !== null &&
        any((value) => trustDomainMatches(value, principal), expandDomains(values, context.domains))
      );
    case "ipBlocks":
    case "source.ip":
      return any((value) => addressMatches(value, facts.sourceIp));
    case "remoteIpBlocks":
    case "remote.ip":
      return any((value) => addressMatches(value, facts.remoteIp));
    case "destination.ip":
      return any((value) => addressMatches(value, facts.destinationIp));
    case "ports":
    case "destination.port":
      return any((value) => Number(value) === facts.port);
    case "connection.sni":
      return any((value) => facts.sni !== null && stringMatches(value, facts.sni.toLowerCase()));
    case "hosts":
      return any((value) => facts.host !== null && headerMatches(value.toLowerCase(), facts.host.toLowerCase()));
    case "methods":
      return any((value) => facts.method !== null && headerMatches(value, facts.method));
    case "paths":
      return any((value) => facts.path !== null && pathMatches(value, facts.path.replace(/[?#].*$/s, "")));
    default:
      return meetsRequestKey(key, values, facts);
  }
}

function meetsRequestKey(key: string, values: readonly string[], facts: Facts): boolean | null {
  const claims = facts.claims;
  const ofClaims = (matches: (value: string, claims: Claims) => boolean): boolean =>
    claims !== null && values.some((value) => matches(value, claims));
  switch (key) {
    case "requestPrincipals":
    case "request.auth.principal":
      return ofClaims(requestPrincipalMatches);
    case "request.auth.audiences":
      return ofClaims((value, given) => claimMatches(value, given, ["aud"]));
    case "request.auth.presenter":
      return ofClaims((value, given) => claimMatches(value, given, ["azp"]));
    default:
      break;
  }
  if (key.startsWith("request.auth.claims")) {
    const inside = key.slice("request.auth.claims".length);
    const names = /^(\[[^[\]]*\])+$/.test(inside) ? inside.slice(1, -1).split("][") : [inside.slice(1, -1)];
    return ofClaims((value, given) => claimMatches(value, given, names));
  }
  if (key.startsWith("request.headers")) {
    const name = /^request\.headers\[(.*)\]$/s.exec(key)?.[1]?.toLowerCase();
    return name === undefined
      ? null
      : values.some((value) => facts.header(name).some((line) => headerMatches(value, line)));
  }
  return false;
}
