/** Group E: tokens and the keys they are checked with. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { parseJwks } from "../../../src/core/jose/jwk.ts";
import { NOW } from "../../../src/core/x509/fixture.ts";
import { allow, decide, denied, faults, from, http, jwtRule, minter, type Row } from "./scene.ts";

const bearer = (token: string) => http({ headers: { authorization: [`Bearer ${token}`] } });
const b64 = (value: unknown): string =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const claims = { iss: "i", sub: "a" };
const seconds = Math.floor(NOW / 1_000);

const refused = (...tokens: string[]): void => denied([jwtRule()], tokens.map(bearer), 401);

/** A good token with another header. */
function withHeader(header: object): string {
  const [, payload, signature] = minter.token(claims).split(".");
  return `${b64(header)}.${payload}.${signature}`;
}

export const TOKENS: readonly Row[] = [
  {
    id: "CVE-2021-21378",
    attack: "a token of an unknown issuer passes where missing tokens do",
    answer: "401",
    check: () => refused(minter.token({ iss: "other", sub: "a" }), minter.token({ sub: "a" })),
  },
  {
    id: "CVE-2019-12995",
    attack: "a malformed token crashes the proxy",
    answer: "401",
    check: () => refused("a", "a.b.c", "..x", "%", `${"a".repeat(70_000)}.b.c`, b64("{"), `${b64("{}")}.${b64("{}")}.`),
  },
  {
    id: "CVE-2026-31837",
    attack: "where the key set cannot be had, a built-in key whose private half is public is used",
    answer: "401: without keys no signature is good; no token is no fault",
    check: () => {
      const remote = jwtRule({ jwks: undefined, jwksUri: "https://unreachable.example/jwks" });
      denied([remote], [bearer(minter.token(claims))], 401);
      assert.equal(decide([remote], http({})).status, 200);
    },
  },
  {
    id: "CVE-2022-29226",
    attack: "any token of the provider is believed, whoever it was for",
    answer: "403 where the audience is another",
    check: () =>
      denied(
        [jwtRule({ audiences: ["shop"] })],
        [bearer(minter.token({ ...claims, aud: "bank" })), bearer(minter.token(claims))],
      ),
  },
  {
    id: "GHSA-fgw5-hp8f-xfhc",
    attack: "jwksUri makes the control plane ask addresses inside",
    answer: "only http and https, no user, no odd authority; sidecars fetch nothing for a policy",
    check: () => {
      for (const jwksUri of [
        "file:///etc/passwd",
        "ftp://a/b",
        "gopher://a",
        "//a/b",
        "https://a b/",
        "javascript:x",
      ]) {
        assert.notDeepEqual(faults(jwtRule({ jwks: undefined, jwksUri })), [], jwksUri);
      }
    },
  },
  {
    id: "alg none",
    attack: "an unsigned token",
    answer: "401",
    check: () =>
      refused(
        `${b64({ alg: "none" })}.${b64(claims)}.`,
        `${b64({ alg: "None" })}.${b64(claims)}.x`,
        withHeader({ alg: "none" }),
      ),
  },
  {
    id: "algorithm confusion",
    attack: "HS256 with the public key as its secret",
    answer: "401: an algorithm fits one type of key",
    check: () => {
      const input = `${b64({ alg: "HS256", kid: "k" })}.${b64(claims)}`;
      refused(
        `${input}.${createHmac("sha256", minter.jwks).update(input).digest("base64url")}`,
        withHeader({ alg: "RS256", kid: "k" }),
      );
    },
  },
  {
    id: "kid traversal",
    attack: "kid names a file or a query",
    answer: "401: a kid is compared with the set's, nothing else",
    check: () =>
      refused(...["../../etc/passwd", "' or 1=1", "\0", "k\n"].map((kid) => withHeader({ alg: "ES256", kid }))),
  },
  {
    id: "doubled claims",
    attack: "two members of one name, of which two readers take different ones",
    answer: "401",
    check: () =>
      refused(minter.text('{"iss":"i","iss":"j","sub":"a"}'), minter.text('{"iss":"i","sub":"a","sub":"b"}')),
  },
  {
    id: "expiry of odd type",
    attack: "exp as text, negative, boolean; or just over",
    answer: "401",
    check: () => refused(...["4102444800", -1, true, {}, seconds - 120].map((exp) => minter.token({ ...claims, exp }))),
  },
  {
    id: "crit",
    attack: "an extension the token marks critical",
    answer: "401 (Envoy lets it pass)",
    check: () => refused(withHeader({ alg: "ES256", kid: "k", crit: ["exp"] })),
  },
  {
    id: "embedded key",
    attack: "jwk, jku or x5u in the header",
    answer: "never used: the signature is checked with the rule's keys",
    check: () =>
      refused(...["jwk", "jku", "x5u"].map((name) => withHeader({ alg: "ES256", kid: "k", [name]: "https://evil" }))),
  },
  {
    id: "weak keys",
    attack: "short RSA keys, exponent 1, points off the curve, empty secrets in a key set",
    answer: "left out of the set: nothing verifies against them",
    check: () => {
      const weak = [
        { kty: "RSA", n: Buffer.alloc(64, 0xff).toString("base64url"), e: "AQAB" },
        { kty: "EC", crv: "P-256", x: "AA", y: "AA" },
        { kty: "oct", k: "" },
      ];
      assert.deepEqual(parseJwks(JSON.stringify({ keys: weak })).keys, []);
    },
  },
  {
    id: "forged claim header",
    attack: "the client sends the header that outputClaimToHeaders writes",
    answer: "taken away, with or without a token",
    check: () => {
      const rule = jwtRule({ outputClaimToHeaders: [{ header: "x-group", claim: "group" }] });
      const policies = [rule, allow({ when: [{ key: "request.headers[x-group]", values: ["admin"] }] })];
      const forged = { "x-group": ["admin"] };
      denied(policies, [http({ headers: forged }), http({ headers: forged, token: minter.token(claims) })]);
    },
  },
  {
    id: "a second token",
    attack: "a good token beside a bad one in another place",
    answer: "401: all that are found are judged",
    check: () =>
      denied(
        [jwtRule()],
        [http({ headers: { authorization: [`Bearer ${minter.token(claims)}`] }, path: "/?access_token=x" })],
        401,
      ),
  },
  {
    id: "principal by slash",
    attack: "issuer https://i.example with subject r/alice is taken for issuer https://i.example/r with subject alice",
    answer: "403: issuer and subject are compared apart",
    check: () =>
      denied(
        [allow(from({ requestPrincipals: ["https://i.example/r/alice"] }))],
        [http({ auth: { issuer: "https://i.example", subject: "r/alice" } })],
      ),
  },
];
