import assert from "node:assert/strict";
import { createSecretKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { readVectors, withoutConformance } from "../../../test/conformance.ts";
import { ALGORITHMS, type JwsAlgorithm, PUBLIC_KEY_ALGORITHMS, signWith } from "./algorithm.ts";
import { exportJwk, type Jwk, parseJwk, parseJwks } from "./jwk.ts";
import { assembleJws, jwsSigningInput, signJws, verifyJws } from "./jws.ts";
import { verifyJwt } from "./jwt.ts";

const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const pairs: Readonly<Record<string, { readonly privateKey: KeyObject; readonly publicKey: KeyObject }>> = {
  RSA: rsa,
  "P-256": generateKeyPairSync("ec", { namedCurve: "P-256" }),
  "P-384": generateKeyPairSync("ec", { namedCurve: "P-384" }),
  "P-521": generateKeyPairSync("ec", { namedCurve: "P-521" }),
  Ed25519: generateKeyPairSync("ed25519"),
};
const secret = createSecretKey(Buffer.alloc(64, 7));
const everything = Object.keys(ALGORITHMS) as JwsAlgorithm[];

const signingKey = (alg: JwsAlgorithm): KeyObject => {
  const { kty, crv } = ALGORITHMS[alg];
  return kty === "oct" ? secret : (pairs[crv ?? "RSA"]?.privateKey as KeyObject);
};
const jwkFor = (alg: JwsAlgorithm, kid?: string): Jwk => {
  const { kty, crv } = ALGORITHMS[alg];
  const named = kid === undefined ? {} : { kid };
  return kty === "oct"
    ? parseJwk({ kty, k: Buffer.alloc(64, 7).toString("base64url"), ...named })
    : parseJwk(exportJwk(pairs[crv ?? "RSA"]?.publicKey as KeyObject, named));
};

test("each algorithm verifies its own and refuses every other", () => {
  const keys = everything.map((alg) => jwkFor(alg));
  for (const signed of everything) {
    const token = signJws({ alg: signed }, "payload", signingKey(signed));
    for (const [index, tried] of everything.entries()) {
      const fits = ALGORITHMS[signed].kty === ALGORITHMS[tried].kty && ALGORITHMS[signed].crv === ALGORITHMS[tried].crv;
      const result = verifyJws(token, [keys[index] as Jwk], { algorithms: everything });
      assert.equal(result.ok, fits, `${signed} with a key for ${tried}`);
    }
    const others = everything.filter((alg) => alg !== signed);
    const refused = verifyJws(token, keys, { algorithms: others });
    assert.equal(refused.ok ? "" : refused.reason, "algorithm-not-allowed");
  }
});

test("which key is taken", async (t) => {
  const a = jwkFor("ES256", "a");
  const unnamed = jwkFor("ES256");
  const other = parseJwk(exportJwk(generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey, { kid: "b" }));
  const token = (kid?: string) =>
    signJws({ alg: "ES256", ...(kid === undefined ? {} : { kid }) }, "x", signingKey("ES256"));
  const cases: readonly (readonly [string, string, readonly Jwk[], string])[] = [
    ["by name", token("a"), [other, a], "ok"],
    ["a name nobody has", token("z"), [other, a], "unknown-key"],
    ["a key without a name, for a name nobody has", token("z"), [other, unnamed], "ok"],
    ["no name: every key that fits is tried", token(), [other, a], "ok"],
    ["one name, two keys", token("a"), [a, { ...other, kid: "a" }], "ambiguous-key"],
    ["one name, two types", token("a"), [a, jwkFor("RS256", "a")], "ok"],
    ["no keys", token("a"), [], "unknown-key"],
    ["a key for encryption", token("a"), [{ ...a, use: "enc" }], "unknown-key"],
    ["a key for other operations", token("a"), [{ ...a, keyOps: ["encrypt"] }], "unknown-key"],
    ["more keys than are worth trying", token(), Array(17).fill(other), "ambiguous-key"],
  ];
  for (const [name, jws, keys, expected] of cases) {
    await t.test(name, () => {
      const result = verifyJws(jws, keys, { algorithms: PUBLIC_KEY_ALGORITHMS });
      assert.equal(result.ok ? "ok" : result.reason, expected);
    });
  }
  await t.test("a name can be demanded", () => {
    const result = verifyJws(token(), [a], { algorithms: ["ES256"], requireKid: true });
    assert.equal(result.ok ? "ok" : result.reason, "key-id-missing");
  });
});

test("nothing but the very token verifies", () => {
  const key = jwkFor("ES256");
  const token = signJws({ alg: "ES256" }, '{"sub":"a"}', signingKey("ES256"));
  fc.assert(
    fc.property(fc.nat(token.length), fc.nat(5), fc.string({ maxLength: 5 }), (at, cut, insert) => {
      const changed = token.slice(0, at) + insert + token.slice(at + cut);
      assert.equal(verifyJws(changed, [key], { algorithms: everything }).ok, changed === token);
    }),
    { numRuns: 1000 },
  );
});

test("JSON that two parsers may read in two ways is refused", async (t) => {
  const key = signingKey("ES256");
  const raw = (header: string): string => {
    const input = Buffer.from(`${Buffer.from(header, "latin1").toString("base64url")}.e30`);
    return assembleJws(input, signWith("ES256", key, input));
  };
  const cases: readonly (readonly [string, string, boolean])[] = [
    ["plain", '{"alg":"ES256"}', true],
    ["white space", ' {\t"alg" : "ES256" }\n', true],
    ["doubled", '{"alg":"none","alg":"ES256"}', false],
    ["doubled by escape", '{"\\u0061lg":"none","alg":"ES256"}', false],
    ["doubled deep inside", '{"alg":"ES256","x":[{"a":1,"a":2}]}', false],
    ["one key in two objects", '{"alg":"ES256","x":{"alg":"none"},"y":[{"a":1},{"a":2}]}', true],
    ["braces in a string", '{"alg":"ES256","x":"{\\"alg\\":","y":"}"}', true],
    ["a byte order mark", '\xef\xbb\xbf{"alg":"ES256"}', false],
    ["not UTF-8", '{"alg":"ES256","x":"\xff"}', false],
    ["a list", '["ES256"]', false],
    ["two documents", '{"alg":"ES256"}{}', false],
    ["deep nesting", `{"alg":"ES256","x":${"[".repeat(120)}${"]".repeat(120)}}`, false],
    ["crit", '{"alg":"ES256","crit":["b64"],"b64":false}', false],
    ["crit that is empty", '{"alg":"ES256","crit":[]}', false],
    ["kid that is no text", '{"alg":"ES256","kid":7}', false],
  ];
  for (const [name, header, ok] of cases) {
    await t.test(name, () => assert.equal(verifyJws(raw(header), [jwkFor("ES256")], { algorithms: ["ES256"] }).ok, ok));
  }
});

test("times of a JWT", async (t) => {
  const now = Date.UTC(2030, 0, 1);
  const at = now / 1000;
  const cases: readonly (readonly [string, object, string])[] = [
    ["none", {}, "ok"],
    ["valid", { exp: at + 1, nbf: at }, "ok"],
    ["a fraction of a second left", { exp: at + 0.5 }, "ok"],
    ["expired", { exp: at }, "expired"],
    ["tomorrow", { nbf: at + 1 }, "not-yet-valid"],
    ["text", { exp: String(at + 1) }, "malformed-claims"],
    ["null", { exp: null }, "malformed-claims"],
  ];
  for (const [name, claims, expected] of cases) {
    await t.test(name, () => {
      const token = signJws({ alg: "ES256" }, JSON.stringify(claims), signingKey("ES256"));
      const result = verifyJwt(token, [jwkFor("ES256")], { algorithms: ["ES256"], now });
      assert.equal(result.ok ? "ok" : result.reason, expected);
    });
  }
  await t.test("a payload that is no object", () => {
    const token = signJws({ alg: "ES256" }, "[]", signingKey("ES256"));
    const result = verifyJwt(token, [jwkFor("ES256")], { algorithms: ["ES256"], now });
    assert.equal(result.ok ? "ok" : result.reason, "malformed-claims");
  });
});

test("a set loses what cannot be used, and says so", () => {
  const good = exportJwk(pairs["P-256"]?.publicKey as KeyObject, { kid: "a" });
  const set = { keys: [good, 7, { kty: "PQ" }, { ...good, kid: "b", y: good.x }, { kty: "oct", k: "AAAA" }] };
  const { keys, ignored } = parseJwks(JSON.stringify(set));
  assert.deepEqual(
    keys.map((key) => key.kid),
    ["a"],
  );
  assert.deepEqual(
    ignored.map(({ index }) => index),
    [1, 2, 3, 4],
  );
  assert.throws(() => parseJwks('{"keys":7}'), /JWK Set/);
  assert.throws(() => parseJwks('{"keys":[],"keys":[]}'), /comes twice/);
});

test("parse ∘ export = identity", () => {
  for (const { publicKey } of Object.values(pairs)) {
    const jwk = parseJwk(exportJwk(publicKey, { kid: "k", use: "sig" }));
    assert.ok(jwk.key.equals(publicKey));
    assert.deepEqual([jwk.kid, jwk.use], ["k", "sig"]);
  }
});

test("Istio's tokens verify with Istio's keys", { skip: withoutConformance() }, () => {
  const { keys } = parseJwks(readVectors("istio/jwks.json") as Record<string, unknown>);
  const tokensOfIstio = readVectors("istio/jwt-tokens.json");
  const tokens = JSON.stringify(tokensOfIstio).match(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g) ?? [];
  assert.ok(tokens.length >= 13);
  for (const token of new Set(tokens)) {
    const result = verifyJws(token, keys, { algorithms: PUBLIC_KEY_ALGORITHMS });
    assert.ok(result.ok, JSON.stringify(result));
  }
});

test("the signing input is what RFC 7515 says", () => {
  assert.equal(Buffer.from(jwsSigningInput({ alg: "ES256" }, "{}")).toString(), "eyJhbGciOiJFUzI1NiJ9.e30");
});
