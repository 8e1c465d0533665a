import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { EveryhopError } from "../base/errors.ts";
import { testCa } from "../x509/fixture.ts";
import { type Bundle, emptyBundle, formatBundle, formatJwtBundle, parseBundle } from "./bundle.ts";
import { parseTrustDomain } from "./id.ts";

const domain = parseTrustDomain("domain.test");
const vectors = JSON.parse(readFileSync(join(import.meta.dirname, "testdata/go-spiffe.json"), "utf8")) as {
  spiffebundle: Readonly<Record<string, string>>;
};

const spki = (kind: "ec" | "rsa"): Uint8Array =>
  (kind === "ec"
    ? generateKeyPairSync("ec", { namedCurve: "P-256" })
    : generateKeyPairSync("rsa", { modulusLength: 2048 })
  ).publicKey.export({ format: "der", type: "spki" });

const authorities = [testCa("one").der, testCa("two").der, testCa("three").der];
const jwtKeys = [spki("ec"), spki("ec"), spki("rsa")];

function plain(bundle: Bundle): unknown {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const jwt = bundle.jwtAuthorities.map((one) => ({ keyId: one.keyId, publicKey: hex(one.publicKey) }));
  return { ...bundle, x509Authorities: bundle.x509Authorities.map(hex), jwtAuthorities: jwt };
}

test("go-spiffe's bundles", async (t) => {
  const read = (name: string) => parseBundle(domain, vectors.spiffebundle[name] as string);
  await t.test("one X.509 and one JWT authority", () => {
    const bundle = read("valid_1");
    assert.deepEqual([bundle.x509Authorities.length, bundle.jwtAuthorities.length], [1, 1]);
    assert.deepEqual([bundle.sequence, bundle.refreshHintMs], [0n, null]);
  });
  await t.test("with sequence and refresh hint", () => {
    const bundle = read("valid_2");
    assert.deepEqual([bundle.x509Authorities.length, bundle.jwtAuthorities.length], [1, 6]);
    assert.deepEqual([bundle.sequence, bundle.refreshHintMs], [1n, 60_000]);
  });
  await t.test("WIT keys are passed over", () => {
    assert.deepEqual(read("valid_with_wit").jwtAuthorities.length, 2);
  });
  await t.test("no `keys`", () => assert.throws(() => read("no_keys"), /`keys` is missing/));
  await t.test("a JWT key without kid", () => assert.throws(() => read("missing_kid"), /no `kid`/));
  // SPEC: SPIFFE_Trust_Domain_and_Bundle §4.2.1 takes the first of `x5c`; go-spiffe refuses a second one.
  await t.test("two certificates in one entry", () => assert.equal(read("multiple_x509").x509Authorities.length, 1));
});

test("parse ∘ format = identity", () => {
  const arbitrary = fc.record({
    x509: fc.uniqueArray(fc.nat(2)),
    jwt: fc.uniqueArray(fc.nat(2)),
    sequence: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    hint: fc.option(fc.integer({ min: 1, max: 1_000_000 })),
  });
  fc.assert(
    fc.property(arbitrary, ({ x509, jwt, sequence, hint }) => {
      const bundle: Bundle = {
        ...emptyBundle(domain),
        x509Authorities: x509.map((index) => authorities[index] as Uint8Array),
        jwtAuthorities: jwt.map((index) => ({
          keyId: `key "${index}"`,
          publicKey: jwtKeys[index] as Uint8Array,
          expiresAtMs: null,
          tainted: false,
        })),
        sequence,
        refreshHintMs: hint === null ? null : hint * 1000,
      };
      const text = formatBundle(bundle);
      JSON.parse(text);
      assert.deepEqual(plain(parseBundle(domain, text)), plain(bundle));
      assert.equal(JSON.parse(formatJwtBundle(bundle)).keys.length, jwt.length);
    }),
    { numRuns: 50 },
  );
});

test("what is refused, what is passed over", async (t) => {
  const jwt = { kty: "EC", use: "jwt-svid", kid: "a", crv: "P-256" };
  const good = JSON.parse(
    formatBundle({
      ...emptyBundle(domain),
      jwtAuthorities: [{ keyId: "a", publicKey: jwtKeys[0] as Uint8Array, expiresAtMs: null, tainted: false }],
    }),
  ).keys[0];
  const cases: readonly (readonly [string, string, RegExp | number])[] = [
    ["no object", "[]", /`keys`/],
    ["not JSON", "{", /malformed JSON/],
    ["an empty set: all is revoked", '{"keys":[]}', 0],
    ["a use nobody knows", JSON.stringify({ keys: [{ ...good, use: "quantum" }] }), 0],
    ["no use", JSON.stringify({ keys: [{ ...good, use: undefined }] }), 0],
    ["a type nobody knows", JSON.stringify({ keys: [{ ...good, kty: "PQ" }] }), 0],
    ["a key twice", JSON.stringify({ keys: [good, good] }), /two `jwt-svid` keys/],
    ["a key without a point", JSON.stringify({ keys: [jwt] }), /`x` is missing/],
    ["an X.509 entry without certificate", JSON.stringify({ keys: [{ kty: "EC", use: "x509-svid" }] }), 0],
    [
      "an X.509 entry that is no certificate",
      JSON.stringify({ keys: [{ kty: "EC", use: "x509-svid", x5c: ["AAAA"] }] }),
      /malformed DER/,
    ],
    ["`keys` twice", '{"keys":[],"keys":[]}', /comes twice/],
    ["a negative sequence", '{"keys":[],"spiffe_sequence":-1}', /spiffe_sequence/],
    ["a sequence with a fraction", '{"keys":[],"spiffe_sequence":1.5}', /spiffe_sequence/],
    ["a sequence of 65 bits", '{"keys":[],"spiffe_sequence":18446744073709551616}', /larger than 64 bits/],
  ];
  for (const [name, json, expected] of cases) {
    await t.test(name, () => {
      if (typeof expected === "number") {
        assert.equal(parseBundle(domain, json).jwtAuthorities.length, expected);
      } else {
        assert.throws(() => parseBundle(domain, json), expected);
      }
    });
  }
});

test("a sequence keeps all its 64 bits", () => {
  assert.equal(parseBundle(domain, '{"keys":[],"spiffe_sequence":9007199254740993}').sequence, 9007199254740993n);
});

test("any text is answered or refused with a typed error", () => {
  const json = formatBundle({ ...emptyBundle(domain), x509Authorities: authorities.slice(0, 1) });
  fc.assert(
    fc.property(fc.nat(json.length), fc.nat(20), fc.string({ maxLength: 8 }), (at, cut, insert) => {
      try {
        parseBundle(domain, json.slice(0, at) + insert + json.slice(at + cut));
      } catch (error) {
        assert.ok(error instanceof EveryhopError && error.code === "invalid-argument", String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

test("SPIFFE_Trust_Domain_and_Bundle §4: each MUST", async (t) => {
  const written = JSON.parse(
    formatBundle({
      ...emptyBundle(domain),
      x509Authorities: authorities.slice(0, 1),
      jwtAuthorities: [{ keyId: "a", publicKey: jwtKeys[0] as Uint8Array, expiresAtMs: null, tainted: false }],
      sequence: 7n,
      refreshHintMs: 300_000,
    }),
  );
  const [x509, jwt] = written.keys;
  const counts = (keys: unknown[], more: object = {}) => {
    const bundle = parseBundle(domain, JSON.stringify({ keys, ...more }));
    return [bundle.x509Authorities.length, bundle.jwtAuthorities.length];
  };
  await t.test("§4.1: nothing but `keys` is required", () => {
    assert.deepEqual(counts([x509, jwt]), [1, 1]);
    assert.deepEqual(counts([x509, jwt], { issuer: "x", spiffe_x: [] }), [1, 1]);
  });
  await t.test("§4.1.1: the sequence is an integer of at least 64 bits", () => {
    assert.equal(written.spiffe_sequence, 7);
    assert.equal(parseBundle(domain, `{"keys":[],"spiffe_sequence":${2n ** 64n - 1n}}`).sequence, 2n ** 64n - 1n);
  });
  await t.test("§4.1.2: the refresh hint is an integer, in seconds", () => {
    assert.equal(written.spiffe_refresh_hint, 300);
    assert.equal(parseBundle(domain, '{"keys":[],"spiffe_refresh_hint":60}').refreshHintMs, 60_000);
    assert.throws(() => parseBundle(domain, '{"keys":[],"spiffe_refresh_hint":"60"}'), /whole number/);
  });
  await t.test("§4.1.3: `keys` is there; without any nothing is believed", () => {
    assert.throws(() => parseBundle(domain, "{}"), /`keys`/);
    assert.deepEqual(counts([]), [0, 0]);
  });
  await t.test("§4.2.1: an element of an unknown `kty`, or of none, is ignored, and no other", () => {
    assert.deepEqual(
      counts([{ ...jwt, kty: "AKP", kid: "b" }, { ...jwt, kty: undefined, kid: "c" }, x509, jwt]),
      [1, 1],
    );
  });
  await t.test("§4.2.2: an element of an unknown `use`, or of none, is ignored; the values are case-sensitive", () => {
    const odd = ["wit-svid", "X509-SVID", "JWT-SVID", undefined].map((use) => ({ ...jwt, use, kid: String(use) }));
    assert.deepEqual(counts([...odd, x509, jwt]), [1, 1]);
    assert.deepEqual([x509.use, jwt.use], ["x509-svid", "jwt-svid"]);
  });
  await t.test("X509-SVID §6.1, JWT-SVID §4.1: one certificate in `x5c` and no `kid`; a `kid` on each JWT key", () => {
    assert.equal(x509.x5c.length, 1);
    assert.equal(x509.kid, undefined);
    assert.equal(jwt.kid, "a");
    assert.throws(() => counts([{ ...jwt, kid: undefined }]), /no `kid`/);
  });
});
