/** SPEC: RequestAuthentication (istio/api security/v1beta1/request_authentication.proto). */

import { parseDurationMs } from "../base/duration.ts";
import { boolean, list, object, oneOf, optional, refined, required, type Shape, string } from "../base/validate.ts";
import { type Envelope, type Report, readTargets, targeted, targetFields, text } from "./admission.ts";
import type { JwtRule, RequestAuthentication } from "./resources.ts";

const DEFAULT_TIMEOUT_MS = 5_000;
const MAX_RULES = 4_096;

const filled = (what: string): Shape<string> =>
  refined(text, (value, at) => (value === "" ? at.fault(`${what} is empty`) : value));

const uri = refined(text, (value, at) => {
  if (value.length > 2_048) {
    return at.fault("a URL has at most 2048 characters");
  }
  return /^https?:\/\/[^\s\\/?#]+([/?#][^\s\\]*)?$/.test(value)
    ? value
    : at.fault(`\`${value}\` is not an http or https URL`, "write it as https://host/path");
});

/** Istio reads each key, and refuses a set with one that it does not know. An empty text is none. */
const jwks = refined(text, (value, at) => {
  if (value === "") {
    return value;
  }
  try {
    const set = JSON.parse(value) as { readonly keys?: unknown } | null;
    const keys: unknown = typeof set === "object" && set !== null && "keys" in set ? set.keys : [set];
    if (Array.isArray(keys) && keys.every(isKey)) {
      return value;
    }
  } catch {
    // Reported below.
  }
  return at.fault("`jwks` is not a JSON Web Key Set", 'write it as {"keys": [{"kty": "EC", …}]}');
});

const MATERIAL: Readonly<Record<string, readonly string[]>> = {
  RSA: ["n", "e"],
  EC: ["crv", "x", "y"],
  OKP: ["crv", "x"],
  oct: ["k"],
};

/** Its type, and the members that the type needs. */
function isKey(value: unknown): boolean {
  const key = (typeof value === "object" && value !== null ? value : {}) as Readonly<Record<string, unknown>>;
  const needed = Object.hasOwn(MATERIAL, String(key.kty)) ? MATERIAL[String(key.kty)] : undefined;
  return needed?.every((name) => typeof key[name] === "string" && key[name] !== "") === true;
}

const timeout = refined(text, (value, at) => {
  const ms = parseDurationMs(value);
  return ms !== null && ms >= 1 ? ms : at.fault(`\`${value}\` is not a duration of at least 1ms`, "write it as `5s`");
});

const jwtRule = object({
  issuer: optional(text),
  audiences: optional(list(filled("an audience"))),
  jwksUri: optional(uri),
  jwks_uri: optional(uri),
  jwks: optional(jwks),
  fromHeaders: optional(list(object({ name: required(filled("the header's name")), prefix: optional(text) }))),
  fromParams: optional(list(filled("a parameter's name"))),
  fromCookies: optional(list(filled("a cookie's name"))),
  outputPayloadToHeader: optional(text),
  forwardOriginalToken: optional(boolean()),
  outputClaimToHeaders: optional(
    list(
      object({
        header: required(string({ pattern: /^[-_A-Za-z0-9]+$/, what: "a header's name" })),
        claim: required(filled("the claim's name")),
      }),
    ),
  ),
  timeout: optional(timeout),
  spaceDelimitedClaims: optional(
    refined(list(filled("a claim's name")), (claims, at) =>
      claims.length > 64 ? at.fault("at most 64 claims") : claims,
    ),
  ),
  presence: optional(oneOf("OPTIONAL", "REQUIRED")),
});

export const jwtSpec = targeted(
  object({
    ...targetFields,
    jwtRules: optional(
      refined(list(jwtRule), (rules, at) =>
        rules.length > MAX_RULES ? at.fault(`at most ${MAX_RULES} rules`) : rules,
      ),
    ),
  }),
);

type JwtSpec = Partial<NonNullable<ReturnType<typeof jwtSpec.read>>>;
type GivenRule = NonNullable<ReturnType<typeof jwtRule.read>>;

export function readRequestAuthentication(
  spec: JwtSpec,
  { annotations: _, ...envelope }: Envelope,
  report: Report,
): RequestAuthentication {
  const jwtRules = (spec.jwtRules ?? []).map((rule, index) => readRule(rule, index, report));
  return { kind: "RequestAuthentication", ...envelope, ...readTargets(spec, report), jwtRules };
}

function readRule(given: GivenRule, index: number, report: Report): JwtRule {
  const at = ["spec", "jwtRules", index];
  const jwksUri = given.jwksUri ?? given.jwks_uri ?? null;
  if (!given.issuer && jwksUri === null) {
    report.fault(at, "one of `issuer` and `jwksUri` is needed");
  }
  if (jwksUri !== null && given.jwks) {
    report.finding("jwks-twice", "warning", [...at, "jwksUri"], "`jwks` is there too: the URL is never asked");
  }
  return {
    issuer: given.issuer ?? "",
    audiences: given.audiences ?? [],
    jwksUri,
    jwks: given.jwks || null,
    fromHeaders: (given.fromHeaders ?? []).map(({ name, prefix }) => ({ name, prefix: prefix ?? "" })),
    fromParams: given.fromParams ?? [],
    fromCookies: given.fromCookies ?? [],
    outputPayloadToHeader: given.outputPayloadToHeader || null,
    forwardOriginalToken: given.forwardOriginalToken ?? false,
    outputClaimToHeaders: given.outputClaimToHeaders ?? [],
    timeoutMs: given.timeout ?? DEFAULT_TIMEOUT_MS,
    spaceDelimitedClaims: given.spaceDelimitedClaims ?? [],
  };
}
