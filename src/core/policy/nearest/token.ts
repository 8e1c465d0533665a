/**
 * Where a token was refused: a RequestAuthentication that would take it. Only where the token is good but for its
 * audience or its issuer; a token that is expired, forged or broken has to be another one.
 */
import { formatPointer, type PatchOperation } from "../../base/json-patch.ts";
import { decodeJws, jsonObject } from "../../jose/jws.ts";
import { authenticate, compileTokens, type KeySource } from "../authenticate.ts";
import type { HttpFacts } from "../facts.ts";
import { httpFacts, type ReceivedRequest } from "../received.ts";
import type { JwtRule, RequestAuthentication } from "../resources.ts";
import { findTokens, tokenPlaces } from "../token-places.ts";
import { type Edit, type NearestMiss, nameOf, patched, type Scene } from "./scene.ts";

/** The request as it was before its tokens were looked at. */
export interface TokenReplay {
  /** A copy of its own each time: validating changes it. */
  readonly received: () => ReceivedRequest;
  readonly nowMs: number;
  readonly keysOf: KeySource;
}

export interface TokenChange {
  readonly change: NearestMiss;
  /** The request with the token taken. */
  readonly facts: HttpFacts;
}

/** Candidates tried out at most. */
const MAX_TRIED = 32;

export function tokenChange({ compiled }: Scene, replay: TokenReplay): TokenChange | null {
  const { requestAuthentications, mesh } = compiled;
  const candidates = requestAuthentications.flatMap((resource) =>
    resource.jwtRules.flatMap((rule, index) =>
      editsFor(rule, index, replay).map((edit) => ({ resource, index, edit })),
    ),
  );
  for (const { resource, index, edit } of candidates.slice(0, MAX_TRIED)) {
    const facts = taken(requestAuthentications, resource, edit, mesh.meshConfig.rootNamespace, replay);
    if (facts !== null) {
      const would = `be accepted if ${edit.text}`;
      return {
        change: { kind: resource.kind, policy: nameOf(resource), rule: index, would, patch: edit.patch },
        facts,
      };
    }
  }
  return null;
}

function taken(
  resources: readonly RequestAuthentication[],
  resource: RequestAuthentication,
  { patch }: Edit,
  rootNamespace: string,
  { received, nowMs, keysOf }: TokenReplay,
): HttpFacts | null {
  const next = patched(resource, patch);
  if (next === null) {
    return null;
  }
  const tokens = compileTokens(
    resources.map((each) => (each === resource ? next : each)),
    rootNamespace,
  );
  const carrier = received();
  const result = authenticate(tokens, carrier, nowMs, keysOf);
  return result.ok ? httpFacts(carrier, result.claims) : null;
}

function editsFor(rule: JwtRule, index: number, { received }: TokenReplay): Edit[] {
  const claims = findTokens(received(), tokenPlaces(rule)).map(({ token }) => claimsOf(token));
  return claims.flatMap((each) =>
    each === null ? [] : [...audienceEdits(rule, index, each), ...issuerEdits(rule, each)],
  );
}

function claimsOf(token: string): Readonly<Record<string, unknown>> | null {
  const decoded = decodeJws(token);
  return decoded.ok ? jsonObject(decoded.payload) : null;
}

function audienceEdits(rule: JwtRule, index: number, { aud }: Readonly<Record<string, unknown>>): Edit[] {
  const given: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  const [audience] = given.filter((each): each is string => typeof each === "string" && each !== "");
  const path = formatPointer(["spec", "jwtRules", index, "audiences", "-"]);
  return rule.audiences.length === 0 || audience === undefined
    ? []
    : [{ text: `\`audiences\` included \`${audience}\``, patch: [{ op: "add", path, value: audience }] }];
}

/** The same keys for the token's own issuer. */
function issuerEdits(rule: JwtRule, { iss }: Readonly<Record<string, unknown>>): Edit[] {
  if (typeof iss !== "string" || iss === "" || rule.issuer === "" || iss === rule.issuer) {
    return [];
  }
  const { jwks, jwksUri, audiences } = rule;
  const value = {
    issuer: iss,
    ...(jwks === null ? {} : { jwks }),
    ...(jwksUri === null ? {} : { jwksUri }),
    ...(audiences.length === 0 ? {} : { audiences }),
  };
  const patch: PatchOperation[] = [{ op: "add", path: "/spec/jwtRules/-", value }];
  return [{ text: `a rule took tokens of the issuer \`${iss}\` signed with the keys of \`${rule.issuer}\``, patch }];
}
