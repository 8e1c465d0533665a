import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { EveryhopError } from "../base/errors.ts";
import { exportJwk, parseJwk, parseJwks } from "../jose/jwk.ts";
import { signJws } from "../jose/jws.ts";
import { CA_EXTENSIONS, NOW, rawCa, rawCertificate, type TestCa, testCa, testKey, testLeaf } from "../x509/fixture.ts";
import { encodeName } from "../x509/name.ts";
import { parseTrustDomain } from "./id.ts";
import { verifyJwtSvid } from "./jwt-svid.ts";
import { verifyX509Svid } from "./x509-svid.ts";

const root = testCa("root");
const middle = rawCa("middle", CA_EXTENSIONS, root);
const chain = [testLeaf(middle, "spiffe://example.com/a"), middle.der];
const bundleOf = () => ({ x509Authorities: [root.der] });

test("INVARIANT: a chain with any octet changed proves nothing, and nothing is thrown", () => {
  assert.ok(verifyX509Svid(chain, bundleOf, NOW).ok);
  fc.assert(
    fc.property(fc.nat(1), fc.nat(), fc.integer({ min: 1, max: 255 }), (which, at, mask) => {
      const changed = chain.map((der) => Buffer.from(der));
      const der = changed[which] as Buffer;
      der[at % der.length] = (der[at % der.length] as number) ^ mask;
      assert.equal(verifyX509Svid(changed, bundleOf, NOW).ok, false);
    }),
    { numRuns: 1500 },
  );
});

test("chains of random pieces are answered, within bounds", () => {
  const others = [testCa("root"), testCa("middle")];
  const pieces = [...chain, root.der, ...others.map(({ der }) => der), new Uint8Array([0x30, 0])];
  fc.assert(
    fc.property(fc.array(fc.nat(pieces.length - 1), { maxLength: 12 }), (order) => {
      const result = verifyX509Svid(
        order.map((index) => pieces[index] as Uint8Array),
        bundleOf,
        NOW,
      );
      const sound = order[0] === 0 && order.includes(1) && order.length <= 10 && !order.includes(pieces.length - 1);
      assert.equal(result.ok, sound, JSON.stringify([order, result.ok ? "ok" : result.reason]));
    }),
    { numRuns: 500 },
  );
});

test("a crowd of issuers that vouch for each other buys a bounded number of signature checks", () => {
  const own = testKey();
  const name = encodeName([{ type: "CN", value: "crowd" }]);
  const ca: TestCa = { ...own, name, der: new Uint8Array() };
  const crowd = Array.from({ length: 9 }, () => rawCertificate(ca, { subject: name, ...CA_EXTENSIONS }, own));
  const result = verifyX509Svid([testLeaf(ca, "spiffe://example.com/a"), ...crowd], bundleOf, NOW);
  // Without a bound there are 9! paths to follow.
  assert.equal(result.ok ? "ok" : result.reason, "too-complex");
});

test("a JWT-SVID with any character changed proves nothing, and nothing is thrown", () => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const authority = {
    keyId: "k",
    publicKey: publicKey.export({ format: "der", type: "spki" }),
    expiresAtMs: null,
    tainted: false,
  };
  const claims = { sub: "spiffe://example.com/a", aud: ["x"], exp: NOW / 1000 + 60 };
  const token = signJws({ alg: "ES256", kid: "k" }, JSON.stringify(claims), privateKey);
  const bundles = new Map([[parseTrustDomain("example.com"), { jwtAuthorities: [authority] }]]);
  const accepted = (jwt: string) => verifyJwtSvid(jwt, (domain) => bundles.get(domain), "x", NOW).ok;
  assert.ok(accepted(token));
  fc.assert(
    fc.property(fc.nat(token.length - 1), fc.string({ minLength: 1, maxLength: 3, unit: "binary" }), (at, insert) => {
      const changed = token.slice(0, at) + insert + token.slice(at + insert.length);
      assert.equal(accepted(changed), changed === token);
    }),
    { numRuns: 1500 },
  );
});

test("any JSON as a key or a set of keys is answered or refused with a typed error", () => {
  const refusesPolitely = (parse: () => unknown): void => {
    try {
      parse();
    } catch (error) {
      assert.ok(error instanceof EveryhopError && error.code === "invalid-argument", String(error));
    }
  };
  const good = exportJwk(generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey, { kid: "a" });
  const member = fc.constantFrom("kty", "kid", "use", "alg", "key_ops", "crv", "x", "y", "n", "e", "k");
  fc.assert(
    fc.property(fc.dictionary(member, fc.oneof(fc.jsonValue(), fc.base64String())), fc.jsonValue(), (changes, any) => {
      refusesPolitely(() => parseJwk({ ...good, ...changes }));
      refusesPolitely(() => parseJwk(any));
      refusesPolitely(() => parseJwks(JSON.stringify({ keys: [any, changes, { ...good, ...changes }] })));
      refusesPolitely(() => parseJwks(JSON.stringify(any)));
    }),
    { numRuns: 1000 },
  );
});
