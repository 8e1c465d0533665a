/**
 * Matching claims of a token. A claim matches as a string, or as any string in a list; numbers, booleans, null and
 * objects never do, and neither does a list inside a list. SOURCE: istio model/util.go, matcher/metadata.go.
 */
import { matchesPattern, type Pattern, type PatternSet } from "../base/pattern.ts";
import type { Claims } from "./facts.ts";

const own = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && !Array.isArray(value) && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;

/** HOT: no allocation. */
export function matchesClaim(claims: Claims, path: readonly string[], patterns: PatternSet): boolean {
  const value = claimAt(claims, path);
  if (typeof value === "string") {
    return patterns.matches(value);
  }
  if (!Array.isArray(value)) {
    return false;
  }
  for (let index = 0; index < value.length; index++) {
    const element: unknown = value[index];
    if (typeof element === "string" && patterns.matches(element)) {
      return true;
    }
  }
  return false;
}

/** Issuer and subject of one `requestPrincipals` value. */
export interface RequestPrincipal {
  readonly issuer: Pattern;
  readonly subject: Pattern;
}

const ANY: Pattern = { kind: "presence" };

/** The value is split at its last slash, since an issuer may be a URL. A star counts at one end only. */
export function parseRequestPrincipal(value: string): RequestPrincipal {
  const slash = value.lastIndexOf("/");
  const issuer = slash === -1 ? value : value.slice(0, slash);
  const subject = slash === -1 ? "" : value.slice(slash + 1);
  if (value === "*") {
    return { issuer: ANY, subject: ANY };
  }
  if (value.startsWith("*")) {
    return slash === -1
      ? { issuer: ANY, subject: { kind: "suffix", text: value.slice(1) } }
      : {
          issuer: issuer === "*" ? ANY : { kind: "suffix", text: issuer.slice(1) },
          subject: { kind: "exact", text: subject },
        };
  }
  if (value.endsWith("*")) {
    return slash === -1
      ? { issuer: { kind: "prefix", text: value.slice(0, -1) }, subject: ANY }
      : {
          issuer: { kind: "exact", text: issuer },
          subject: subject === "*" ? ANY : { kind: "prefix", text: subject.slice(0, -1) },
        };
  }
  return { issuer: { kind: "exact", text: issuer }, subject: { kind: "exact", text: subject } };
}

/** A list of request principals of which one must match; exact ones are looked up, however many there are. */
export class RequestPrincipalSet {
  /** Subjects by issuer. */
  readonly #exact = new Map<string, Set<string>>();
  readonly #others: RequestPrincipal[] = [];

  constructor(values: readonly string[]) {
    for (const { issuer, subject } of values.map(parseRequestPrincipal)) {
      if (issuer.kind === "exact" && subject.kind === "exact") {
        const subjects = this.#exact.get(issuer.text) ?? new Set();
        this.#exact.set(issuer.text, subjects.add(subject.text));
      } else {
        this.#others.push({ issuer, subject });
      }
    }
  }

  /** HOT: no allocation. */
  matches(claims: Claims): boolean {
    const issuer = own(claims, "iss");
    const subject = own(claims, "sub");
    if (typeof issuer !== "string" || typeof subject !== "string") {
      return false;
    }
    if (this.#exact.size > 0 && this.#exact.get(issuer)?.has(subject)) {
      return true;
    }
    for (let index = 0; index < this.#others.length; index++) {
      const other = this.#others[index]!;
      if (matchesPattern(other.issuer, issuer) && matchesPattern(other.subject, subject)) {
        return true;
      }
    }
    return false;
  }
}

/** HOT: the claim at a path as text, or the list it is; undefined where it is neither. */
export function claimAt(claims: Claims, path: readonly string[]): unknown {
  let value: unknown = claims;
  for (let index = 0; index < path.length; index++) {
    value = own(value, path[index]!);
  }
  return value;
}
