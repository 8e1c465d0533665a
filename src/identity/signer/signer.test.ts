import assert from "node:assert/strict";
import { generateKeyPairSync, randomBytes, sign, X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { verifyWith } from "../../core/jose/algorithm.ts";
import { decodeJws } from "../../core/jose/jws.ts";
import { publicKeyFromSpki } from "../../core/x509/algorithm.ts";
import { assembleCertificate, buildCaTbs } from "../../core/x509/build.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { parseCsr, verifyCsr } from "../../core/x509/csr.ts";
import { HOUR, NOW, testCa, testKey, testSerial } from "../../core/x509/fixture.ts";
import { memoryKeyStore } from "../../io/keys.ts";
import type { Ceilings, HeldKey, Intent, LeafIntent, TokenIntent } from "../intent/intent.ts";
import { KEY_TYPES, type KeyType } from "../intent/key-type.ts";
import { Signer } from "./signer.ts";
import { fileVault } from "./vault.ts";

const CEILINGS: Ceilings = {
  maxX509SvidTtlMs: 4 * HOUR,
  maxJwtSvidTtlMs: HOUR,
  maxCaTtlMs: 24 * HOUR,
  maxPerSecond: 10,
  downstream: false,
};

const serial = (): string => `40${randomBytes(15).toString("hex")}`;

interface Bench {
  readonly signer: Signer;
  readonly logDir: string;
  now: number;
  /** The outcome of one intent, as far as it goes. */
  sign(intent: Intent): Promise<Uint8Array>;
  ca(type?: KeyType): Promise<HeldKey>;
}

async function bench(t: TestContext, ceilings: Partial<Ceilings> = {}): Promise<Bench> {
  const logDir = mkdtempSync(join(tmpdir(), "everyhop-signer-"));
  const clock = { now: NOW };
  const { signer } = await Signer.open(
    { trustDomain: "example.com", keys: { kind: "memory" }, logDir, ceilings: { ...CEILINGS, ...ceilings } },
    { now: () => clock.now, random: randomBytes, openVault: async () => fileVault(memoryKeyStore(), true) },
  );
  t.after(async () => {
    await signer.close();
    rmSync(logDir, { recursive: true });
  });
  const sign: Bench["sign"] = async (intent) => {
    const [prepared] = signer.prepare([intent]);
    if (prepared?.ok !== true) {
      throw prepared?.error;
    }
    const [signed] = await signer.sign([prepared.value.token]);
    if (signed?.ok !== true) {
      throw signed?.error;
    }
    return signed.value;
  };
  return Object.assign(clock, {
    signer,
    logDir,
    sign,
    async ca(type: KeyType = "ec-p256") {
      const key = await signer.createKey("x509", type);
      const times = { notBeforeMs: NOW - 10_000, notAfterMs: NOW + 12 * HOUR };
      const intent = { kind: "x509-ca", authorityId: key.id, serial: serial(), spki: key.spki, ...times } as const;
      await signer.adopt(key.id, [await sign(intent)]);
      return key;
    },
  });
}

const leaf = (authorityId: string, change: Partial<LeafIntent> = {}): LeafIntent => ({
  kind: "x509-svid",
  authorityId,
  serial: serial(),
  spki: testKey().spki,
  spiffeId: "spiffe://example.com/a",
  dnsNames: [],
  notBeforeMs: NOW - 10_000,
  notAfterMs: NOW + HOUR,
  ...change,
});

const token = (authorityId: string, change: Partial<TokenIntent> = {}): TokenIntent => ({
  kind: "jwt-svid",
  authorityId,
  serial: serial(),
  spiffeId: "spiffe://example.com/a",
  audiences: ["b"],
  issuer: null,
  includeJwtId: false,
  notBeforeMs: NOW,
  notAfterMs: NOW + 300_000,
  ...change,
});

test("every type of key signs what verifiers accept", async (t) => {
  for (const type of KEY_TYPES) {
    await t.test(type, async () => {
      const b = await bench(t);
      const { id, spki } = await b.ca(type);
      const certificate = new X509Certificate(await b.sign(leaf(id)));
      assert.equal(certificate.subjectAltName, "URI:spiffe://example.com/a");
      assert.ok(certificate.verify(publicKeyFromSpki(spki)));
      const jwt = await b.signer.createKey("jwt", type);
      const signed = decodeJws(Buffer.from(await b.sign(token(jwt.id))).toString());
      assert.ok(signed.ok);
      assert.ok(verifyWith(signed.header.alg, publicKeyFromSpki(jwt.spki), signed.signingInput, signed.signature));
    });
  }
});

test("what the signer refuses, whatever it is asked", async (t) => {
  const b = await bench(t, { maxPerSecond: 100 });
  const { id, spki } = await b.ca();
  const jwt = (await b.signer.createKey("jwt", "ec-p256")).id;
  const bare = (await b.signer.createKey("x509", "ec-p256")).id;
  const weak = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "der", type: "spki" });
  const ca = { kind: "x509-ca", authorityId: id, notBeforeMs: NOW - 10_000, notAfterMs: NOW + HOUR } as const;
  const cases: readonly (readonly [string, Intent, string, RegExp])[] = [
    ["another trust domain", leaf(id, { spiffeId: "spiffe://other.test/a" }), "permission-denied", /trust domain/],
    [
      "a trust domain that only begins alike",
      leaf(id, { spiffeId: "spiffe://example.com.evil/a" }),
      "permission-denied",
      /trust domain/,
    ],
    ["the root of the trust domain", leaf(id, { spiffeId: "spiffe://example.com" }), "invalid-argument", /root/],
    ["no SPIFFE ID", leaf(id, { spiffeId: "spiffe://example.com/a/../b" }), "invalid-argument", /dot segments/],
    ["a lifetime over its ceiling", leaf(id, { notAfterMs: NOW + 5 * HOUR }), "permission-denied", /ceiling of 4h/],
    ["what outlives its CA", leaf(id, { notAfterMs: NOW + 13 * HOUR }), "permission-denied", /ceiling/],
    ["what has expired", leaf(id, { notAfterMs: NOW }), "failed-precondition", /not valid any more/],
    ["what begins later", leaf(id, { notBeforeMs: NOW + 1_000 }), "internal", /not yet valid/],
    ["what began long ago", leaf(id, { notBeforeMs: NOW - 61_000 }), "internal", /too far in the past/],
    ["fractions of a second", leaf(id, { notAfterMs: NOW + HOUR + 1 }), "invalid-argument", /whole seconds/],
    ["a weak key", leaf(id, { spki: weak }), "invalid-argument", /1024 bits/],
    ["a key that is none", leaf(id, { spki: Buffer.from("3000", "hex") }), "invalid-argument", /./],
    ["a DNS name that is none", leaf(id, { dnsNames: ["a b"] }), "invalid-argument", /DNS/],
    ["a serial number of zero", leaf(id, { serial: "00".repeat(16) }), "internal", /serial/],
    ["a key it does not have", leaf("ab".repeat(20)), "failed-precondition", /no x509 key/],
    ["a JWT key for a certificate", leaf(jwt), "failed-precondition", /no x509 key/],
    ["a CA without a certificate", leaf(bare), "failed-precondition", /no certificate yet/],
    ["a CA for another key", { ...ca, serial: serial(), spki: testKey().spki }, "permission-denied", /another server/],
    [
      "a CA for too long",
      { ...ca, serial: serial(), spki, notAfterMs: NOW + 25 * HOUR },
      "permission-denied",
      /ceiling/,
    ],
    [
      "a token for another trust domain",
      token(jwt, { spiffeId: "spiffe://other.test/a" }),
      "permission-denied",
      /trust/,
    ],
    ["a token without an audience", token(jwt, { audiences: [] }), "invalid-argument", /audience/],
    ["a token for too long", token(jwt, { notAfterMs: NOW + 2 * HOUR }), "permission-denied", /ceiling of 1h/],
    ["a token of tomorrow", token(jwt, { notBeforeMs: NOW + HOUR, notAfterMs: NOW + HOUR }), "internal", /iat/],
    ["a CA key for a token", token(id), "failed-precondition", /no jwt key/],
  ];
  const before = (await b.signer.log(0)).lines.length;
  for (const [name, intent, code, message] of cases) {
    await t.test(name, () => assert.rejects(b.sign(intent), { code, message }));
  }
  assert.equal((await b.signer.log(0)).lines.length, before, "nothing of it reached the log");
});

test("nothing outlives its CA, also below the ceiling", async (t) => {
  const b = await bench(t);
  const { id } = await b.ca();
  b.now = NOW + 11 * HOUR;
  const times = { notBeforeMs: b.now, notAfterMs: b.now + 2 * HOUR };
  await assert.rejects(b.sign(leaf(id, times)), { message: /outlives its issuer/ });
});

test("a permit is worth one signature, for a minute; a serial number is used once", async (t) => {
  const b = await bench(t);
  const { id } = await b.ca();
  const intent = leaf(id);
  const permits = b.signer.prepare([intent, leaf(id), intent]);
  assert.deepEqual(
    permits.map((one) => one.ok),
    [true, true, false],
  );
  const [first, second] = permits.map((one) => (one.ok ? one.value.token : ""));
  const twice = await b.signer.sign([first ?? "", first ?? "", "ab".repeat(16)]);
  assert.deepEqual(
    twice.map((one) => one.ok),
    [true, false, false],
  );
  await assert.rejects(b.sign(intent), { code: "already-exists" });
  b.now += 60_000;
  const [late] = await b.signer.sign([second ?? ""]);
  assert.match(late?.ok === false ? late.error.message : "", /has expired/);
});

test("no more a second than the ceiling, with a burst of ten seconds' worth", async (t) => {
  const b = await bench(t);
  const { id } = await b.ca();
  const ask = (count: number) =>
    b.signer.prepare(Array.from({ length: count }, () => leaf(id))).filter((one) => one.ok).length;
  assert.equal(ask(150), 100);
  b.now += 1_000;
  assert.equal(ask(50), 10);
});

test("CAs of servers below, where they are allowed: not many an hour, within the ceilings, all in the log", async (t) => {
  const b = await bench(t, { downstream: true });
  const { id } = await b.ca();
  const below = (): Intent => ({
    kind: "x509-ca",
    authorityId: id,
    serial: serial(),
    spki: testKey().spki,
    notBeforeMs: NOW - 10_000,
    notAfterMs: NOW + HOUR,
  });
  const certificate = parseCertificate(await b.sign(below()));
  assert.equal(certificate.basicConstraints?.ca, true);
  assert.deepEqual(certificate.names?.uris, ["spiffe://example.com"]);
  assert.equal(certificate.authorityKeyId, id);
  const { spki } = testKey();
  const many = Array.from({ length: 510 }, () => ({ ...below(), spki }));
  assert.equal(b.signer.prepare(many).filter((one) => one.ok).length, 499);
});

test("only a CA certificate of ours, for that very key, is adopted", async (t) => {
  const b = await bench(t);
  const { id, spki } = await b.signer.createKey("x509", "ec-p256");
  const foreign = testCa("other");
  await assert.rejects(b.signer.adopt(id, [foreign.der]), { code: "invalid-argument" });
  await assert.rejects(b.signer.adopt(id, []), { code: "invalid-argument" });
  // A certificate that says the key signed itself, and it did not: its lifetime would be a ceiling of the server's choice.
  const forged = {
    serial: testSerial(),
    algorithm: "ecdsa-sha256",
    issuer: foreign.name,
    subject: foreign.name,
  } as const;
  const times = { notBeforeMs: NOW - HOUR, notAfterMs: NOW + 1_000 * HOUR };
  const authorityKeyId = Buffer.from(id, "hex");
  const tbs = buildCaTbs({
    ...forged,
    ...times,
    spki,
    authorityKeyId,
    spiffeId: "spiffe://example.com",
    pathLength: null,
  });
  const der = assembleCertificate(tbs, "ecdsa-sha256", (bytes) => sign("sha256", bytes, foreign.key));
  await assert.rejects(b.signer.adopt(id, [der]), { code: "invalid-argument" });
});

test("a request to an authority above verifies, and asks for the trust domain alone", async (t) => {
  const b = await bench(t);
  const { id, spki } = await b.signer.createKey("x509", "ec-p256");
  const csr = await b.sign({ kind: "x509-csr", authorityId: id, serial: serial() });
  assert.deepEqual(verifyCsr(csr).names?.uris, ["spiffe://example.com"]);
  assert.deepEqual(Buffer.from(parseCsr(csr).spki), Buffer.from(spki));
});

test("the log has each thing that was signed, with the digest that was linted, before it is handed out", async (t) => {
  const b = await bench(t);
  const { id } = await b.ca();
  const intent = leaf(id, { dnsNames: ["a.example"] });
  const [permit] = b.signer.prepare([intent]);
  assert.ok(permit?.ok);
  await b.signer.sign([permit.value.token]);
  const [file = ""] = readdirSync(b.logDir);
  const lines = readFileSync(join(b.logDir, file), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map(({ kind }) => kind),
    ["start", "create-key", "x509-ca", "adopt", "x509-svid"],
  );
  const { at, n, chain, ...last } = lines.at(-1);
  assert.deepEqual([typeof at, n, chain.length], ["string", 5, 64]);
  const { serial: number, spiffeId, dnsNames, notAfterMs } = intent;
  const { digest } = permit.value;
  assert.deepEqual(last, {
    kind: "x509-svid",
    serial: number,
    id: spiffeId,
    dns: dnsNames,
    until: notAfterMs,
    by: id,
    digest,
  });
});
