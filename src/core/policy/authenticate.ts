/**
 * RequestAuthentication: tokens are validated before any AuthorizationPolicy is asked. No token is no fault; a bad one is.
 * SOURCE: istio pilot/pkg/security/authn/policy_applier.go (convertToEnvoyJwtConfig); envoy
 * source/extensions/filters/http/jwt_authn/{filter,verifier,authenticator}.cc.
 */
import { toWire } from "../base/pattern.ts";
import { encodeBase64Url } from "../jose/base64url.ts";
import { type Jwk, parseJwks } from "../jose/jwk.ts";
import { decodeJws } from "../jose/jws.ts";
import type { Claims } from "./facts.ts";
import { addLine } from "./headers.ts";
import type { JwtRule, RequestAuthentication } from "./resources.ts";
import { checkToken, type TokenFault } from "./token-check.ts";
import { findTokens, type TokenCarrier, type TokenPlaces, tokenPlaces } from "./token-places.ts";

/** The JWT rules of a workload, in the order Istio gives them to Envoy: by issuer. */
export interface CompiledTokens {
  readonly providers: readonly Provider[];
}

interface Provider {
  readonly rule: JwtRule;
  readonly places: TokenPlaces;
  /** Keys of the rule's own `jwks`; null where only a URL says them. */
  readonly keys: readonly Jwk[] | null;
  /** Lower-case names of headers only validated tokens may set. */
  readonly ownHeaders: readonly string[];
}

/** Keys of a `jwksUri`, as far as they are known by now; null where they are not. */
export type KeySource = (jwksUri: string) => readonly Jwk[] | null;

export type Authentication =
  | { readonly ok: true; readonly claims: Claims | null }
  | {
      readonly ok: false;
      readonly status: 401 | 403;
      readonly fault: TokenFault;
      /** The `jwksUri` whose key set lacks the token's key: a newer one may have it. */
      readonly missingKeysOf: string | null;
    };

export function compileTokens(resources: readonly RequestAuthentication[], rootNamespace: string): CompiledTokens {
  const rootLast = [...resources].sort(
    (a, b) => Number(a.namespace === rootNamespace) - Number(b.namespace === rootNamespace),
  );
  const rules = rootLast.flatMap((resource) => resource.jwtRules);
  rules.sort((a, b) => (a.issuer < b.issuer ? -1 : a.issuer > b.issuer ? 1 : 0));
  return {
    providers: rules.map((rule) => ({
      rule,
      places: tokenPlaces(rule),
      keys: rule.jwks === null ? null : readKeys(rule.jwks),
      ownHeaders: [
        ...(rule.outputPayloadToHeader === null ? [] : [rule.outputPayloadToHeader]),
        ...rule.outputClaimToHeaders.map(({ header }) => header),
      ].map((name) => name.toLowerCase()),
    })),
  };
}

/** A set that cannot be read has no keys: every token is then refused. */
function readKeys(jwks: string): readonly Jwk[] {
  try {
    return parseJwks(jwks).keys;
  } catch {
    return [];
  }
}

/** Status of one rule: missing is no fault by itself. */
type Outcome = "ok" | "missing" | TokenFault;

/**
 * Validates the tokens of a request. Changes `carrier` as Envoy changes the request: validated tokens go (unless they are
 * to be forwarded), claims are copied to headers, forged copies of those are removed.
 */
export function authenticate(
  compiled: CompiledTokens,
  carrier: TokenCarrier,
  nowMs: number,
  keysOf: KeySource = () => null,
): Authentication {
  const { providers } = compiled;
  if (providers.length === 0 || isPreflight(carrier)) {
    return { ok: true, claims: null };
  }
  const run = new Run(carrier, nowMs, keysOf);
  const outcomes: Outcome[] = [];
  for (const provider of providers) {
    const outcome = run.verify(provider);
    if (outcome === "ok") {
      return { ok: true, claims: run.claims };
    }
    outcomes.push(outcome);
  }
  const all = providers.length === 1 ? outcomes[0] : allOrMissing(run, providers);
  const fault = all === "missing" || all === "ok" ? "missing" : overallFault([...outcomes, all ?? "missing"]);
  return fault === "missing" || fault === "ok"
    ? { ok: true, claims: run.claims }
    : { ok: false, status: fault === "wrong-audience" ? 403 : 401, fault, missingKeysOf: run.missingKeysOf };
}

/**
 * Of several rules none of which was met. Istio asks for {P1 or P2 … or (P1 or missing) and (P2 or missing) …}: this is the
 * last part. The rules are tried once more, on a request from which tokens that were good are gone already.
 */
function allOrMissing(run: Run, providers: readonly Provider[]): Outcome {
  for (const provider of providers) {
    const outcome = run.verify(provider);
    if (outcome !== "ok" && outcome !== "missing") {
      return outcome;
    }
  }
  return "ok";
}

/** Of alternatives that all failed the last fault counts that says more than that the issuer is another. */
function overallFault(outcomes: readonly Outcome[]): Outcome {
  const faults = outcomes.filter((outcome) => outcome !== "missing");
  return faults.filter((fault) => fault !== "unknown-issuer").at(-1) ?? faults[0] ?? "missing";
}

/** A CORS preflight carries no credentials and is not asked for any. */
function isPreflight({ method, headers }: TokenCarrier): boolean {
  const has = (name: string): boolean => (headers.get(name) ?? []).some((value) => value !== "");
  return method === "OPTIONS" && has("origin") && has("access-control-request-method");
}

class Run {
  readonly #carrier: TokenCarrier;
  readonly #nowMs: number;
  readonly #keysOf: KeySource;
  claims: Claims | null = null;
  missingKeysOf: string | null = null;

  constructor(carrier: TokenCarrier, nowMs: number, keysOf: KeySource) {
    this.#carrier = carrier;
    this.#nowMs = nowMs;
    this.#keysOf = keysOf;
  }

  /** All tokens at the rule's places must be good; they are judged last to first. */
  verify(provider: Provider): Outcome {
    const { rule } = provider;
    for (const name of provider.ownHeaders) {
      this.#carrier.headers.delete(name);
    }
    const tokens = findTokens(this.#carrier, provider.places);
    if (tokens.length === 0) {
      return "missing";
    }
    const keys = provider.keys ?? (rule.jwksUri === null ? null : this.#keysOf(rule.jwksUri));
    for (const found of [...tokens].reverse()) {
      const result = checkToken(found.token, rule, keys, this.#nowMs);
      if (!result.ok) {
        if (result.fault === "bad-signature" && provider.keys === null && !hasKeyOf(found.token, keys)) {
          this.missingKeysOf = rule.jwksUri;
        }
        return result.fault;
      }
      this.#copyOut(rule, result.claims, result.payload);
      if (!rule.forwardOriginalToken) {
        found.remove(this.#carrier);
      }
      this.claims = splitClaims(result.claims, rule.spaceDelimitedClaims);
    }
    return "ok";
  }

  #copyOut(rule: JwtRule, claims: Claims, payload: string): void {
    const { headers } = this.#carrier;
    if (rule.outputPayloadToHeader !== null) {
      addLine(headers, rule.outputPayloadToHeader.toLowerCase(), payload);
    }
    for (const { header, claim } of rule.outputClaimToHeaders) {
      const value = claimText(claimAt(claims, claim));
      if (isFieldValue(value)) {
        addLine(headers, header.toLowerCase(), value);
      }
    }
  }
}

/** Whether the set has a key of the token's name: then another set would not help. */
function hasKeyOf(token: string, keys: readonly Jwk[] | null): boolean {
  const decoded = decodeJws(token);
  const kid = decoded.ok ? decoded.header.kid : null;
  return keys !== null && (kid === null || keys.some((key) => key.kid === kid));
}

/** Whether a header can carry it: a line feed in a claim must not become another header. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is refused
const isFieldValue = (value: string): boolean => value !== "" && !/[\u0000-\u0008\u000a-\u001f\u007f]/.test(value);

/** A dot in the name goes into an object. */
function claimAt(claims: Claims, name: string): unknown {
  let value: unknown = claims;
  for (const step of name.split(".")) {
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    value = isObject && Object.hasOwn(value as object, step) ? (value as Claims)[step] : undefined;
  }
  return value;
}

/** A claim as a header carries it; empty where it cannot. Lists and objects go as base64 of their JSON. */
function claimText(value: unknown): string {
  switch (typeof value) {
    case "string":
      return toWire(value);
    case "boolean":
      return String(value);
    case "number":
      return Number.isInteger(value) && value >= 0 && value < 2 ** 64 ? BigInt(value).toString() : value.toFixed(6);
    case "object":
      return value === null ? "" : base64(JSON.stringify(value));
    default:
      return "";
  }
}

function base64(text: string): string {
  const encoded = encodeBase64Url(text).replaceAll("-", "+").replaceAll("_", "/");
  return encoded.padEnd(Math.ceil(encoded.length / 4) * 4, "=");
}

/** Split at spaces before they are matched, top level only. */
const SPACE_DELIMITED = ["scope", "permission"];

export function splitClaims(claims: Claims, spaceDelimited: readonly string[]): Claims {
  const result: Record<string, unknown> = { ...claims };
  for (const name of [...SPACE_DELIMITED, ...spaceDelimited]) {
    const value = Object.hasOwn(claims, name) ? claims[name] : undefined;
    const words = typeof value === "string" ? value.split(" ").filter((word) => word !== "") : [];
    if (words.length > 0) {
      result[name] = words;
    }
  }
  return result;
}
