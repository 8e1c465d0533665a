import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { test } from "node:test";
import { type JwsAlgorithm, signWith } from "../jose/algorithm.ts";
import { assembleJws, jwsSigningInput, signJws } from "../jose/jws.ts";
import type { JwtAuthority } from "./bundle.ts";
import { parseTrustDomain } from "./id.ts";
import { type JwtSvidFault, verifyJwtSvid } from "./jwt-svid.ts";

const NOW = Date.UTC(2030, 0, 1);
const ec = generateKeyPairSync("ec", { namedCurve: "P-384" });
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const foreign = generateKeyPairSync("ec", { namedCurve: "P-256" });

const authority = (keyId: string, key: KeyObject): JwtAuthority => ({
  keyId,
  publicKey: key.export({ format: "der", type: "spki" }),
  expiresAtMs: null,
  tainted: false,
});
const bundles = new Map([
  [
    parseTrustDomain("trustdomain"),
    { jwtAuthorities: [authority("authority1", ec.publicKey), authority("authority2", rsa.publicKey)] },
  ],
  [parseTrustDomain("other"), { jwtAuthorities: [authority("theirs", foreign.publicKey)] }],
]);

const CLAIMS = { sub: "spiffe://trustdomain/host", aud: ["audience"], exp: NOW / 1000 + 60, iat: NOW / 1000 };

function token(
  claims: object,
  header: object = {},
  key: KeyObject = ec.privateKey,
  alg: JwsAlgorithm = "ES384",
): string {
  const input = jwsSigningInput({ alg, kid: "authority1", typ: "JWT", ...header }, JSON.stringify(claims));
  return assembleJws(input, signWith(alg, key, input));
}

function reasonOf(jwt: string, audience = "audience", now = NOW): JwtSvidFault | "ok" {
  const result = verifyJwtSvid(jwt, (domain) => bundles.get(domain), audience, now);
  return result.ok ? "ok" : result.reason;
}

test("a good token proves the identity", () => {
  const result = verifyJwtSvid(token({ ...CLAIMS, role: "x" }), (domain) => bundles.get(domain), "audience", NOW);
  assert.ok(result.ok);
  assert.equal(result.id, "spiffe://trustdomain/host");
  assert.deepEqual(result.audiences, ["audience"]);
  assert.equal(result.expiresAtMs, NOW + 60_000);
  assert.equal(result.claims.role, "x");
  assert.equal(result.keyId, "authority1");
});

test("go-spiffe's table and the specification's rules", async (t) => {
  const without = (name: keyof typeof CLAIMS) => ({ ...CLAIMS, [name]: undefined });
  const cases: readonly (readonly [string, string, JwtSvidFault | "ok"])[] = [
    ["malformed", "invalid token", "malformed"],
    ["missing subject", token(without("sub")), "no-spiffe-id"],
    ["missing expiry", token(without("exp")), "no-expiry"],
    ["expired", token({ ...CLAIMS, exp: NOW / 1000 - 60 }), "expired"],
    ["expires this instant", token({ ...CLAIMS, exp: NOW / 1000 }), "expired"],
    ["expiry as text", token({ ...CLAIMS, exp: "4102444800" }), "malformed-claims"],
    ["not yet valid", token({ ...CLAIMS, nbf: NOW / 1000 + 10 }), "not-yet-valid"],
    ["missing audience", token(without("aud")), "no-audience"],
    ["no audience", token({ ...CLAIMS, aud: [] }), "no-audience"],
    ["audience as text", token({ ...CLAIMS, aud: "audience" }), "ok"],
    ["another audience", token({ ...CLAIMS, aud: ["another"] }), "wrong-audience"],
    ["one audience among others", token({ ...CLAIMS, aud: ["another", "audience"] }), "ok"],
    ["a number among audiences", token({ ...CLAIMS, aud: ["audience", 7] }), "no-audience"],
    ["invalid subject", token({ ...CLAIMS, sub: "invalid subject" }), "no-spiffe-id"],
    ["subject in upper case", token({ ...CLAIMS, sub: "spiffe://TRUSTDOMAIN/host" }), "no-spiffe-id"],
    ["missing key id", token(CLAIMS, { kid: undefined }), "key-id-missing"],
    ["unknown key id", token(CLAIMS, { kid: "noKey" }), "unknown-key"],
    ["another authority's key id", token(CLAIMS, { kid: "authority2" }), "unknown-key"],
    [
      "another key under the same id",
      token(CLAIMS, {}, generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey),
      "bad-signature",
    ],
    [
      "no bundle for the trust domain",
      token({ ...CLAIMS, sub: "spiffe://another.domain/host" }),
      "unknown-trust-domain",
    ],
    ["another trust domain's key", token(CLAIMS, { kid: "theirs" }, foreign.privateKey, "ES256"), "unknown-key"],
    ["our key for another trust domain", token({ ...CLAIMS, sub: "spiffe://other/host" }), "unknown-key"],
    ["typ JOSE", token(CLAIMS, { typ: "JOSE" }), "ok"],
    ["no typ", token(CLAIMS, { typ: undefined }), "ok"],
    ["typ of another kind", token(CLAIMS, { typ: "invalid" }), "unsupported-header"],
    ["typ that is no text", token(CLAIMS, { typ: 7 }), "unsupported-header"],
    ["a header that nobody needs", token(CLAIMS, { jku: "https://evil.example" }), "unsupported-header"],
    ["crit", token(CLAIMS, { crit: ["exp"] }), "unsupported-header"],
    ["PS256", token(CLAIMS, { kid: "authority2" }, rsa.privateKey, "PS256"), "ok"],
    ["RS512", token(CLAIMS, { kid: "authority2" }, rsa.privateKey, "RS512"), "ok"],
  ];
  for (const [name, jwt, expected] of cases) {
    await t.test(name, () => assert.equal(reasonOf(jwt), expected));
  }
});

test("algorithms outside the specification are refused before any key is looked at", async (t) => {
  const ed = generateKeyPairSync("ed25519");
  await t.test("EdDSA", () =>
    assert.equal(reasonOf(token(CLAIMS, {}, ed.privateKey, "EdDSA")), "algorithm-not-allowed"),
  );
  await t.test("none", () => {
    const [, body] = token(CLAIMS).split(".");
    const head = Buffer.from('{"alg":"none","kid":"authority1"}').toString("base64url");
    assert.equal(reasonOf(`${head}.${body}.`), "algorithm-not-allowed");
  });
  await t.test("HS256 with the public key as secret", async () => {
    const { createSecretKey } = await import("node:crypto");
    const pem = Buffer.from(ec.publicKey.export({ format: "pem", type: "spki" }));
    const forged = signJws({ alg: "HS256", kid: "authority1" }, JSON.stringify(CLAIMS), createSecretKey(pem));
    assert.equal(reasonOf(forged), "algorithm-not-allowed");
  });
});

test("doubled keys are refused, in the header and in the claims", () => {
  const sign = (header: string, claims: string) => {
    const input = Buffer.from(
      `${Buffer.from(header).toString("base64url")}.${Buffer.from(claims).toString("base64url")}`,
    );
    return assembleJws(input, signWith("ES384", ec.privateKey, input));
  };
  const header = '{"alg":"ES384","kid":"authority1"}';
  assert.equal(reasonOf(sign(header, JSON.stringify(CLAIMS))), "ok");
  assert.equal(reasonOf(sign('{"alg":"ES384","kid":"x","kid":"authority1"}', JSON.stringify(CLAIMS))), "malformed");
  const claims = JSON.stringify(CLAIMS).replace("{", '{"sub":"spiffe://trustdomain/admin",');
  assert.equal(reasonOf(sign(header, claims)), "malformed-claims");
  assert.equal(reasonOf(sign(header, claims.replace('"sub"', '"s\\u0075b"'))), "malformed-claims");
});

test("leeway is for the issuer's clock alone", () => {
  const verify = (leeway: number) => {
    const late = token({ ...CLAIMS, exp: NOW / 1000 - 5 });
    return verifyJwtSvid(late, (domain) => bundles.get(domain), "audience", NOW, leeway).ok;
  };
  assert.deepEqual([verify(0), verify(5_000), verify(5_001)], [false, false, true]);
});
