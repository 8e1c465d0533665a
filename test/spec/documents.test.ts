/**
 * Every MUST of SPIFFE's documents on identities, one test each, named by its section: SPIFFE-ID, X509-SVID, JWT-SVID, SPIFFE Trust
 * Domain and Bundle. Editions: spiffe/spiffe at 665a28f3. Those of the Workload API are in workload-api.test.ts.
 */
import assert from "node:assert/strict";
import { createSecretKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { test } from "node:test";
import { type JwsAlgorithm, signWith } from "../../src/core/jose/algorithm.ts";
import { assembleJws, jwsSigningInput } from "../../src/core/jose/jws.ts";
import { type Bundle, emptyBundle, formatBundle, parseBundle } from "../../src/core/spiffe/bundle.ts";
import { parseTrustDomain, spiffeIdFault, trustDomainFault } from "../../src/core/spiffe/id.ts";
import { verifyJwtSvid } from "../../src/core/spiffe/jwt-svid.ts";
import { bundlesOf, verifyX509Svid } from "../../src/core/spiffe/x509-svid.ts";
import { EKU } from "../../src/core/x509/extensions.ts";
import {
  CA_EXTENSIONS,
  LEAF_EXTENSIONS,
  NOW,
  type RawOptions,
  rawCa,
  rawCertificate,
  testCa,
  testLeaf,
} from "../../src/core/x509/fixture.ts";

function must(section: string, what: string, check: () => void): void {
  test(`SPEC: ${section}: ${what}`, check);
}

// --- SPIFFE-ID -----------------------------------------------------------------------------------------------------
const refuses =
  (...ids: readonly string[]) =>
  () => {
    for (const id of ids) {
      assert.notEqual(spiffeIdFault(id), null, id);
    }
  };
const takes =
  (...ids: readonly string[]) =>
  () => {
    for (const id of ids) {
      assert.equal(spiffeIdFault(id), null, id);
    }
  };

must(
  "SPIFFE-ID §2",
  "the scheme is `spiffe`",
  refuses("https://example.com/a", "spiffes://example.com/a", "example.com/a"),
);
must("SPIFFE-ID §2", "there is a trust domain", refuses("spiffe://", "spiffe:///a", "spiffe:/a", "spiffe:a"));
must(
  "SPIFFE-ID §2",
  "no query",
  refuses("spiffe://example.com/a?b", "spiffe://example.com?b", "spiffe://example.com/a?"),
);
must(
  "SPIFFE-ID §2",
  "no fragment",
  refuses("spiffe://example.com/a#b", "spiffe://example.com#", "spiffe://example.com/#"),
);
must("SPIFFE-ID §2.1", "the host is not empty", refuses("spiffe:///path"));
must(
  "SPIFFE-ID §2.1",
  "no userinfo",
  refuses("spiffe://user@example.com/a", "spiffe://user:pass@example.com/a", "spiffe://@example.com/a"),
);
must("SPIFFE-ID §2.1", "no port", refuses("spiffe://example.com:8080/a", "spiffe://example.com:/a"));
must("SPIFFE-ID §2.1", "the host is in lower case (read strictly, as go-spiffe reads it: §2.4)", () => {
  refuses("spiffe://Example.com/a", "spiffe://EXAMPLE.COM/a", "Spiffe://example.com/a")();
});
must("SPIFFE-ID §2.1", "the host has letters, digits, dots, dashes and underscores only", () => {
  takes("spiffe://a-b_c.d0/a")();
  for (let code = 1; code < 256; code++) {
    const character = String.fromCharCode(code);
    const allowed = /[a-z0-9._-]/.test(character);
    if (character !== "/") {
      assert.equal(trustDomainFault(`a${character}b`) === null, allowed, `character ${code}`);
    }
  }
});
must(
  "SPIFFE-ID §2.1",
  "no percent-encoding in the host",
  refuses("spiffe://example%2ecom/a", "spiffe://%65xample.com/a"),
);
must("SPIFFE-ID §2.1", "an IPv4 address is a name like any other, and an IPv6 address is none", () => {
  takes("spiffe://10.0.0.1/a", "spiffe://999.999.999.999/a", "spiffe://-.-/a", "spiffe://a..b/a")();
  refuses("spiffe://[::1]/a", "spiffe://::1/a")();
});
must(
  "SPIFFE-ID §2.2",
  "no percent-encoding in the path",
  refuses("spiffe://example.com/%61", "spiffe://example.com/a%2Fb"),
);
must("SPIFFE-ID §2.2", "no empty segments", refuses("spiffe://example.com//a", "spiffe://example.com/a//b"));
must("SPIFFE-ID §2.2", "no `.` and `..` segments, and what only looks like them is fine", () => {
  refuses(
    "spiffe://example.com/.",
    "spiffe://example.com/a/./b",
    "spiffe://example.com/..",
    "spiffe://example.com/a/..",
  )();
  takes(
    "spiffe://example.com/...",
    "spiffe://example.com/.a",
    "spiffe://example.com/..a/b..",
    "spiffe://example.com/a/....",
  )();
});
must("SPIFFE-ID §2.2", "no trailing slash", refuses("spiffe://example.com/", "spiffe://example.com/a/"));
must("SPIFFE-ID §2.2", "segments have letters, digits, dots, dashes and underscores only; case matters", () => {
  for (let code = 1; code < 256; code++) {
    const character = String.fromCharCode(code);
    const allowed = /[a-zA-Z0-9._-]/.test(character);
    if (character !== "/") {
      assert.equal(spiffeIdFault(`spiffe://example.com/a${character}b`) === null, allowed, `character ${code}`);
    }
  }
});
must("SPIFFE-ID §2.3", "2048 bytes are supported, and a trust domain of 255", () => {
  const start = "spiffe://example.com/";
  takes(start + "a".repeat(2048 - start.length), `spiffe://${"a".repeat(255)}/a`)();
});

// --- X509-SVID -----------------------------------------------------------------------------------------------------
const ID = "spiffe://example.com/ns/shop/sa/web";
const root = testCa("root");
const foreignRoot = testCa("foreign", { spiffeId: "spiffe://other.org" });
const bundles = bundlesOf(
  new Map([
    [parseTrustDomain("example.com"), [root.der]],
    [parseTrustDomain("other.org"), [foreignRoot.der]],
  ]),
);
const verdict = (...chain: readonly Uint8Array[]): string => {
  const result = verifyX509Svid(chain, bundles, NOW);
  return result.ok ? result.id : result.reason;
};
const leaf = (options: RawOptions = {}) => rawCertificate(root, { uris: [ID], ...LEAF_EXTENSIONS, ...options });
const judged = (options: RawOptions, expected: string) => () => assert.equal(verdict(leaf(options)), expected);

must("X509-SVID §2", "exactly one URI name, and any number of others", () => {
  assert.equal(verdict(leaf({ uris: [] })), "no-spiffe-id");
  assert.equal(verdict(leaf({ uris: [ID, "spiffe://example.com/b"] })), "several-uri-names");
  assert.equal(verdict(leaf({ uris: [ID, "https://example.com"] })), "several-uri-names");
  assert.equal(verdict(leaf({ dnsNames: ["a.example.com", "b.example.com"] })), ID);
});
must("X509-SVID §3.1", "a leaf's ID has a path", judged({ uris: ["spiffe://example.com"] }, "root-path"));
must("X509-SVID §3.2", "a signing certificate's ID has no path", () => {
  const named = rawCa("named", { ...CA_EXTENSIONS, uris: ["spiffe://example.com/ca"] }, root);
  assert.equal(verdict(rawCertificate(named, { uris: [ID], ...LEAF_EXTENSIONS }), named.der), "signer-has-path");
  const rightly = rawCa("rightly", { ...CA_EXTENSIONS, uris: ["spiffe://example.com"] }, root);
  assert.equal(verdict(rawCertificate(rightly, { uris: [ID], ...LEAF_EXTENSIONS }), rightly.der), ID);
});
must("X509-SVID §3.2", "a signing certificate authenticates nobody", () => {
  assert.notEqual(verdict(root.der), "spiffe://example.com");
  const named = rawCa("named", { ...CA_EXTENSIONS, uris: [ID] }, root);
  assert.equal(verdict(named.der), "leaf-is-ca");
});
must("X509-SVID §4.1", "signing certificates have cA true, leaves cA false", () => {
  assert.equal(verdict(leaf({ basicConstraints: [true] })), "leaf-is-ca");
  const noCa = rawCa("no ca", { ...CA_EXTENSIONS, basicConstraints: [false] }, root);
  assert.notEqual(verdict(rawCertificate(noCa, { uris: [ID], ...LEAF_EXTENSIONS }), noCa.der), ID);
});
must("X509-SVID §4.3", "keyUsage is there, in leaf and signing certificate", () => {
  assert.equal(verdict(rawCertificate(root, { uris: [ID], basicConstraints: [false] })), "leaf-key-usage");
  const silent = rawCa("silent", { basicConstraints: [true] }, root);
  assert.notEqual(verdict(rawCertificate(silent, { uris: [ID], ...LEAF_EXTENSIONS }), silent.der), ID);
});
must("X509-SVID §4.3", "a signing certificate has keyCertSign, and may have cRLSign", () => {
  const chainOf = (...keyUsage: RawOptions["keyUsage"] & object) => {
    const ca = rawCa("ca", { ...CA_EXTENSIONS, keyUsage }, root);
    return verdict(rawCertificate(ca, { uris: [ID], ...LEAF_EXTENSIONS }), ca.der);
  };
  assert.notEqual(chainOf("cRLSign"), ID);
  assert.equal(chainOf("keyCertSign"), ID);
  assert.equal(chainOf("keyCertSign", "cRLSign"), ID);
});
must("X509-SVID §4.3", "a leaf has digitalSignature", judged({ keyUsage: ["keyEncipherment"] }, "leaf-key-usage"));
must("X509-SVID §4.3", "a leaf may have keyEncipherment and keyAgreement", () => {
  judged({ keyUsage: ["digitalSignature", "keyEncipherment", "keyAgreement"] }, ID)();
});
must("X509-SVID §4.3", "a leaf has neither keyCertSign nor cRLSign", () => {
  judged({ keyUsage: ["digitalSignature", "keyCertSign"] }, "leaf-may-sign")();
  judged({ keyUsage: ["digitalSignature", "cRLSign"] }, "leaf-may-sign")();
});
must("X509-SVID §4.4", "extended usage, where it is there, names servers and clients", () => {
  judged({ purposes: [EKU.serverAuth, EKU.clientAuth] }, ID)();
  judged({ purposes: [EKU.serverAuth] }, "leaf-purpose")();
  judged({ purposes: [EKU.clientAuth] }, "leaf-purpose")();
});
must(
  "X509-SVID §5.1",
  "paths are validated as RFC 5280 says: signatures, dates, path length, unknown critical extensions",
  () => {
    assert.equal(verdict(testLeaf(root, ID)), ID);
    assert.equal(verdict(testLeaf({ ...testCa("root"), spki: root.spki }, ID)), "bad-signature");
    judged({ notAfterMs: NOW - 1_000 }, "expired")();
    judged({ notBeforeMs: NOW + 1_000 }, "not-yet-valid")();
    const short = rawCa("short", { ...CA_EXTENSIONS, basicConstraints: [true, 0] }, root);
    const below = rawCa("below", CA_EXTENSIONS, short);
    assert.notEqual(verdict(rawCertificate(below, { uris: [ID], ...LEAF_EXTENSIONS }), below.der, short.der), ID);
  },
);
must("X509-SVID §5.1", "only authorities of the ID's own trust domain count", () => {
  assert.equal(verdict(testLeaf(foreignRoot, ID), foreignRoot.der), "unknown-authority");
  assert.equal(verdict(testLeaf(root, "spiffe://other.org/a"), root.der), "unknown-authority");
});
must("X509-SVID §5.2", "a validator looks at cA, keyCertSign, cRLSign, scheme and path", () => {
  judged({ basicConstraints: [true] }, "leaf-is-ca")();
  judged({ keyUsage: ["digitalSignature", "keyCertSign"] }, "leaf-may-sign")();
  judged({ keyUsage: ["digitalSignature", "cRLSign"] }, "leaf-may-sign")();
  judged({ uris: ["https://example.com/a"] }, "no-spiffe-id")();
  judged({ uris: ["spiffe://example.com"] }, "root-path")();
});

const domain = parseTrustDomain("example.com");
const jwtKey = generateKeyPairSync("ec", { namedCurve: "P-256" });
const whole: Bundle = {
  ...emptyBundle(domain),
  x509Authorities: [root.der],
  jwtAuthorities: [
    {
      keyId: "k1",
      publicKey: jwtKey.publicKey.export({ format: "der", type: "spki" }),
      expiresAtMs: null,
      tainted: false,
    },
  ],
  sequence: 7n,
  refreshHintMs: 300_000,
};
const published = JSON.parse(formatBundle(whole)) as { keys: Record<string, unknown>[]; [name: string]: unknown };
const [x509Entry = {}, jwtEntry = {}] = published.keys;
const read = (...keys: readonly object[]) => parseBundle(domain, JSON.stringify({ keys }));

must("X509-SVID §6.1", "`use` is `x509-svid`, without `kid`, and `x5c` is exactly the certificate", () => {
  assert.deepEqual([x509Entry.use, "kid" in x509Entry], ["x509-svid", false]);
  assert.deepEqual(x509Entry.x5c, [Buffer.from(root.der).toString("base64")]);
});
must("X509-SVID §6.2", "an entry without `x5c`, or with an empty one, is ignored", () => {
  const entries = [{ ...x509Entry, x5c: undefined }, { ...x509Entry, x5c: [] }, x509Entry];
  assert.equal(read(...entries).x509Authorities.length, 1);
});
must("X509-SVID §6.2", "of several in `x5c` only the first counts", () => {
  const several = {
    ...x509Entry,
    x5c: [...(x509Entry.x5c as string[]), Buffer.from(foreignRoot.der).toString("base64")],
  };
  assert.deepEqual(
    read(several).x509Authorities.map((der) => Buffer.from(der)),
    [Buffer.from(root.der)],
  );
});

// --- JWT-SVID ------------------------------------------------------------------------------------------------------
const CLAIMS = { sub: ID, aud: ["shop"], exp: NOW / 1_000 + 60 };
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const curves = {
  ES256: jwtKey,
  ES384: generateKeyPairSync("ec", { namedCurve: "P-384" }),
  ES512: generateKeyPairSync("ec", { namedCurve: "P-521" }),
};
const jwtBundle = (keys: Readonly<Record<string, KeyObject>>) => ({
  jwtAuthorities: Object.entries(keys).map(([keyId, key]) => ({
    keyId,
    publicKey: key.export({ format: "der", type: "spki" }),
    expiresAtMs: null,
    tainted: false,
  })),
});
const keysOf = new Map([
  [
    domain,
    jwtBundle({
      k1: jwtKey.publicKey,
      rsa: rsa.publicKey,
      ES384: curves.ES384.publicKey,
      ES512: curves.ES512.publicKey,
    }),
  ],
  [parseTrustDomain("other.org"), jwtBundle({ theirs: curves.ES384.publicKey })],
]);
function token(
  claims: object,
  header: object = {},
  key: KeyObject = jwtKey.privateKey,
  alg: JwsAlgorithm = "ES256",
): string {
  const input = jwsSigningInput({ alg, kid: "k1", ...header }, JSON.stringify(claims));
  return assembleJws(input, signWith(alg, key, input));
}
const jwtVerdict = (jwt: string, audience = "shop") => {
  const result = verifyJwtSvid(jwt, (name) => keysOf.get(name), audience, NOW);
  return result.ok ? result.id : result.reason;
};

must("JWT-SVID §1, §5.1", "the compact serialization alone", () => {
  const [header, payload, signature] = token(CLAIMS).split(".");
  for (const body of [
    { payload, signatures: [{ protected: header, signature }] },
    { payload, protected: header, signature },
    { payload, protected: header, header: { kid: "k1" }, signature },
  ]) {
    assert.equal(jwtVerdict(JSON.stringify(body)), "malformed");
  }
});
must("JWT-SVID §2", "no header but `alg`, `kid` and `typ`", () => {
  for (const header of [
    { jku: "https://a" },
    { x5c: [] },
    { jwk: {} },
    { cty: "JWT" },
    { crit: ["exp"] },
    { own: 1 },
  ]) {
    assert.equal(jwtVerdict(token(CLAIMS, header)), "unsupported-header", JSON.stringify(header));
  }
});
must("JWT-SVID §2.1", "RS, ES and PS with 256, 384 and 512 are taken", () => {
  for (const alg of ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] as const) {
    assert.equal(jwtVerdict(token(CLAIMS, { alg, kid: "rsa" }, rsa.privateKey, alg)), ID, alg);
  }
  assert.equal(jwtVerdict(token(CLAIMS)), ID);
  for (const alg of ["ES384", "ES512"] as const) {
    assert.equal(jwtVerdict(token(CLAIMS, { alg, kid: alg }, curves[alg].privateKey, alg)), ID, alg);
  }
});
must("JWT-SVID §2.1, §4", "every other algorithm is refused before anything else is looked at: HS256 first", () => {
  const secret = createSecretKey(jwtKey.publicKey.export({ format: "der", type: "spki" }));
  for (const alg of ["HS256", "HS384", "HS512"] as const) {
    assert.equal(jwtVerdict(token(CLAIMS, { alg }, secret, alg)), "algorithm-not-allowed", alg);
  }
  const { privateKey } = generateKeyPairSync("ed25519");
  assert.equal(jwtVerdict(token(CLAIMS, { alg: "EdDSA" }, privateKey, "EdDSA")), "algorithm-not-allowed");
  for (const alg of ["none", "NONE", "ES256K", "ES257", ""]) {
    const [, payload] = token(CLAIMS).split(".");
    const header = Buffer.from(JSON.stringify({ alg, kid: "k1" })).toString("base64url");
    assert.equal(jwtVerdict(`${header}.${payload}.`), "algorithm-not-allowed", alg);
  }
});
must("JWT-SVID §2.3", "`typ` is `JWT` or `JOSE` where it is there", () => {
  assert.equal(jwtVerdict(token(CLAIMS, { typ: "JWT" })), ID);
  assert.equal(jwtVerdict(token(CLAIMS, { typ: "JOSE" })), ID);
  for (const typ of ["jwt", "wit+jwt", "", 1, null]) {
    assert.equal(jwtVerdict(token(CLAIMS, { typ })), "unsupported-header", String(typ));
  }
});
must("JWT-SVID §3.1", "`sub` is a SPIFFE ID", () => {
  for (const sub of [undefined, "", "web", "https://example.com/a", 7, ["spiffe://example.com/a"]]) {
    assert.equal(jwtVerdict(token({ ...CLAIMS, sub })), "no-spiffe-id", String(sub));
  }
});
must("JWT-SVID §3.2", "`aud` is there and has the validator's own value", () => {
  assert.equal(jwtVerdict(token({ ...CLAIMS, aud: undefined })), "no-audience");
  assert.equal(jwtVerdict(token({ ...CLAIMS, aud: [] })), "no-audience");
  assert.equal(jwtVerdict(token({ ...CLAIMS, aud: ["bank"] })), "wrong-audience");
  assert.equal(jwtVerdict(token({ ...CLAIMS, aud: ["Shop"] })), "wrong-audience");
  assert.equal(jwtVerdict(token({ ...CLAIMS, aud: "shop" })), ID);
  assert.equal(jwtVerdict(token({ ...CLAIMS, aud: ["bank", "shop"] })), ID);
});
must("JWT-SVID §3.3, §4", "`exp` is there and lies ahead", () => {
  assert.equal(jwtVerdict(token({ ...CLAIMS, exp: undefined })), "no-expiry");
  assert.equal(jwtVerdict(token({ ...CLAIMS, exp: NOW / 1_000 })), "expired");
  assert.equal(jwtVerdict(token({ ...CLAIMS, exp: "soon" })), "malformed-claims");
});
must("JWT-SVID §4", "the signature is that of a key of the subject's own trust domain", () => {
  assert.equal(jwtVerdict(token(CLAIMS, { alg: "ES384" }, curves.ES384.privateKey, "ES384")), "unknown-key");
  const claims = { ...CLAIMS, sub: "spiffe://other.org/a" };
  assert.equal(jwtVerdict(token(claims)), "unknown-key");
  assert.equal(jwtVerdict(token({ ...CLAIMS, sub: "spiffe://nobody.org/a" })), "unknown-trust-domain");
  assert.equal(jwtVerdict(`${token(CLAIMS).slice(0, -6)}AAAAAA`), "bad-signature");
});
must("JWT-SVID §6.1", "`use` is `jwt-svid`, with `kid`", () => {
  assert.deepEqual([jwtEntry.use, jwtEntry.kid], ["jwt-svid", "k1"]);
  assert.throws(() => read({ ...jwtEntry, kid: undefined }), /no `kid`/);
});
must("JWT-SVID §6.2", "only `jwt-svid` keys verify JWT-SVIDs", () => {
  const { jwtAuthorities } = read(
    { ...jwtEntry, use: "x509-svid" },
    { ...jwtEntry, use: "wit-svid", kid: "w" },
    { ...jwtEntry, use: "sig" },
  );
  assert.deepEqual(jwtAuthorities, []);
});

// --- Trust domain and bundle ---------------------------------------------------------------------------------------
must("Bundle §4.1", "parameters nobody defined may be there, and are not needed", () => {
  const text = JSON.stringify({ keys: published.keys, own: { a: 1 }, spiffe_own: [] });
  assert.equal(parseBundle(domain, text).x509Authorities.length, 1);
  assert.equal(parseBundle(domain, '{"keys":[]}').sequence, 0n);
});
must("Bundle §4.1.1", "the sequence number is a whole number, of 64 bits", () => {
  assert.equal(published.spiffe_sequence, 7);
  assert.equal(parseBundle(domain, '{"keys":[],"spiffe_sequence":18446744073709551615}').sequence, 2n ** 64n - 1n);
  for (const value of ["1.5", '"1"', "-1", "null"]) {
    assert.throws(() => parseBundle(domain, `{"keys":[],"spiffe_sequence":${value}}`), /spiffe_sequence/, value);
  }
});
must("Bundle §4.1.2", "the refresh hint is a whole number of seconds", () => {
  assert.equal(published.spiffe_refresh_hint, 300);
  assert.equal(parseBundle(domain, '{"keys":[],"spiffe_refresh_hint":60}').refreshHintMs, 60_000);
  assert.throws(() => parseBundle(domain, '{"keys":[],"spiffe_refresh_hint":"60"}'), /spiffe_refresh_hint/);
});
must("Bundle §4.1.3", "`keys` is there", () => {
  for (const text of ["{}", '{"keys":null}', '{"keys":{}}', "[]", '"keys"']) {
    assert.throws(() => parseBundle(domain, text), /`keys`/, text);
  }
});
must("Bundle §4.1.3", "an empty list revokes everything: nothing of that trust domain is believed", () => {
  const { x509Authorities } = parseBundle(domain, '{"keys":[]}');
  const empty = bundlesOf(new Map([[domain, x509Authorities]]));
  assert.equal(verifyX509Svid([leaf()], empty, NOW).ok, false);
  const nobody = () => ({ jwtAuthorities: [] });
  assert.equal(verifyJwtSvid(token(CLAIMS), nobody, "shop", NOW).ok, false);
});
must("Bundle §4.2.1", "a key without type, or of an unknown one, is ignored", () => {
  const odd = [{ ...jwtEntry, kty: undefined }, { ...jwtEntry, kty: "PQ" }, { ...jwtEntry, kty: "ec" }, jwtEntry];
  assert.equal(read(...odd).jwtAuthorities.length, 1);
});
must("Bundle §4.2.2", "a key without use, of an unknown one, or in another case is ignored", () => {
  const odd = [
    { ...jwtEntry, use: undefined },
    { ...jwtEntry, use: "quantum" },
    { ...jwtEntry, use: "JWT-SVID" },
    jwtEntry,
  ];
  assert.equal(read(...odd).jwtAuthorities.length, 1);
});
must("Bundle §6.3", "a member that comes twice is refused", () => {
  assert.throws(() => parseBundle(domain, '{"keys":[],"keys":[]}'), /comes twice/);
});
