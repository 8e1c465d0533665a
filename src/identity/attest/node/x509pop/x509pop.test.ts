import assert from "node:assert/strict";
import { createHash, createPublicKey, generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  HOUR,
  LEAF_EXTENSIONS,
  NOW,
  rawCa,
  rawCertificate,
  type TestCa,
  type TestKey,
  testCa,
  testKey,
} from "../../../../core/x509/fixture.ts";
import { encodeName } from "../../../../core/x509/name.ts";
import { certificatesToPem } from "../../../../core/x509/pem.ts";
import { asJson, prove, refusal } from "../fixture.ts";
import type { MakeProof } from "../proof.ts";
import { x509popProof } from "./prove.ts";
import { type X509PopOptions, x509popVerifier } from "./verify.ts";

const CA = testCa("nodes");
const verifier = (options: Partial<X509PopOptions> = {}) =>
  x509popVerifier({ authorities: () => [CA.der], ...options });
const rsaKey = (bits = 2048): TestKey => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: bits });
  return { key: privateKey, spki: publicKey.export({ format: "der", type: "spki" }) };
};

type Made = { readonly uris?: readonly string[]; readonly issuer?: TestCa; readonly keyUsage?: readonly never[] };

function certificate(key: TestKey, common = "node-1", made: Made = {}): Uint8Array {
  const { issuer = CA, uris = [] } = made;
  const options = {
    ...LEAF_EXTENSIONS,
    subject: encodeName([{ type: "CN", value: common }]),
    uris,
    ...(made.keyUsage === undefined ? {} : { keyUsage: made.keyUsage }),
  };
  return rawCertificate(issuer, options, key);
}

function node(t: TestContext, key: TestKey, chain: readonly Uint8Array[]): MakeProof {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-x509pop-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const files = { certificateFile: join(dir, "node.pem"), privateKeyFile: join(dir, "node.key") };
  writeFileSync(files.certificateFile, certificatesToPem(chain));
  writeFileSync(files.privateKeyFile, key.key.export({ format: "pem", type: "pkcs8" }));
  return x509popProof(files);
}

const sha1 = (der: Uint8Array) => createHash("sha1").update(der).digest("hex");

test("a node with a certificate is known by it, with keys of every kind", async (t) => {
  for (const key of [testKey(), testKey("P-384"), testKey("P-521"), rsaKey()]) {
    const leaf = certificate(key, "node-1", { uris: ["x509pop://example.com/env/prod/eu", "x509pop://other/a/b"] });
    const found = await prove(verifier(), node(t, key, [leaf]), { now: NOW });
    assert.equal(found.path, `/spire/agent/x509pop/${sha1(leaf)}`);
    assert.equal(found.reattestable, true);
    assert.deepEqual(
      found.selectors.filter((one) => !one.startsWith("x509pop:serialnumber:")),
      ["x509pop:subject:cn:node-1", `x509pop:ca:fingerprint:${sha1(CA.der)}`, "x509pop:san:env:prod/eu"],
    );
    assert.match(found.selectors.join(" "), /x509pop:serialnumber:([0-9a-f]{2})+( |$)/);
  }
});

test("an intermediate, and a PKI whose CAs say nothing of their key's usage", async (t) => {
  const plain = rawCa("plain", {
    subject: encodeName([{ type: "CN", value: "plain" }]),
    basicConstraints: [true],
  });
  const middle = testCa("middle", {}, CA);
  const key = testKey();
  const leaf = certificate(key, "node-2", { issuer: middle });
  const found = await prove(verifier(), node(t, key, [leaf, middle.der]), { now: NOW });
  const issuers = found.selectors.filter((one) => one.includes("ca:fingerprint"));
  assert.deepEqual(
    issuers,
    [middle, CA].map(({ der }) => `x509pop:ca:fingerprint:${sha1(der)}`),
  );
  const other = certificate(key, "node-3", { issuer: plain });
  await prove(verifier({ authorities: () => [plain.der] }), node(t, key, [other]), { now: NOW });
});

test("the path comes of a template; in mode spiffe of the SVID", async (t) => {
  const key = testKey();
  const named = verifier({ agentPathTemplate: "/{{ .PluginName }}/cn/{{.Subject.CommonName}}" });
  const made = node(t, key, [certificate(key)]);
  assert.equal((await prove(named, made, { now: NOW })).path, "/spire/agent/x509pop/cn/node-1");
  const odd = node(t, key, [certificate(key, "no/../way")]);
  await assert.rejects(prove(named, odd, { now: NOW }), refusal("permission-denied", /makes no agent ID/));
  const svid = node(t, key, [certificate(key, "n", { uris: ["spiffe://example.com/spire-exchange/rack/7"] })]);
  const spiffe = verifier({ mode: "spiffe" });
  assert.equal((await prove(spiffe, svid, { now: NOW })).path, "/spire/agent/x509pop/rack/7");
  const uris = ["spiffe://example.com/ns/a/sa/b"];
  const workload = node(t, key, [certificate(key, "n", { uris })]);
  await assert.rejects(prove(spiffe, workload, { now: NOW }), refusal("permission-denied", /no X\.509-SVID under/));
  assert.throws(
    () => verifier({ agentPathTemplate: "/{{ .Serial | lower }}" }),
    refusal("config-invalid", /not known/),
  );
});

test("who does not hold the key, is not certified, or not now, proves nothing", async (t) => {
  const [key, other] = [testKey(), testKey()];
  const leaf = certificate(key);
  const stranger = node(t, other, [leaf]);
  await assert.rejects(prove(verifier(), stranger, { now: NOW }), refusal("permission-denied", /challenge response/));
  const mine = node(t, key, [leaf]);
  const late = { now: NOW + 100 * 24 * HOUR };
  await assert.rejects(prove(verifier(), mine, late), refusal("permission-denied", /expired/));
  const elsewhere = verifier({ authorities: () => [testCa("other").der] });
  await assert.rejects(prove(elsewhere, mine, { now: NOW }), refusal("permission-denied", /no authority/));
  const cannotSign = node(t, key, [certificate(key, "n", { keyUsage: [] })]);
  await assert.rejects(prove(verifier(), cannotSign, { now: NOW }), refusal("invalid-argument", /digital signature/));
});

test("an answer to another challenge, a replayed one, and malformed ones are refused", async (t) => {
  const key = testKey();
  const made = node(t, key, [certificate(key)]);
  let kept: Uint8Array | null = null;
  await prove(verifier(), made, { now: NOW, answer: (bytes) => (kept = bytes) });
  const replay = prove(verifier(), made, { now: NOW, answer: () => kept as unknown as Uint8Array });
  await assert.rejects(replay, refusal("permission-denied", /verification failed/));
  const answers: [(document: Record<string, unknown>) => unknown, RegExp][] = [
    [() => ({}), /missing `ecdsa_signature`/],
    [() => ({ rsa_signature: {} }), /missing `ecdsa_signature`/],
    [({ ecdsa_signature: one }) => ({ ecdsa_signature: { ...(one as object), nonce: "AAAA" } }), /invalid nonce/],
    [({ ecdsa_signature: one }) => ({ ecdsa_signature: { ...(one as object), r: "!" } }), /not base64/],
    [({ ecdsa_signature: one }) => ({ ecdsa_signature: { ...(one as object), r: "AAAA" } }), /verification failed/],
  ];
  for (const [change, message] of answers) {
    const attempt = prove(verifier(), made, { now: NOW, answer: asJson(change) });
    await assert.rejects(attempt, (error: Error) => message.test(error.message), String(message));
  }
});

test("SPIRE 1.14.2, CPU of x509pop: long chains and huge keys are refused before anything is computed with them", async (t) => {
  const key = testKey();
  const leaf = certificate(key);
  const made = node(t, key, [leaf]);
  const many = asJson(() => ({ certificates: Array(6).fill(Buffer.from(leaf).toString("base64")) }));
  await assert.rejects(
    prove(verifier(), made, { now: NOW, payload: many }),
    refusal("invalid-argument", /too many intermediate/),
  );
  const modulus = Buffer.alloc(2_049, 0xff).toString("base64url");
  const huge = createPublicKey({ key: { kty: "RSA", e: "AQAB", n: modulus.slice(1) }, format: "jwk" });
  const spki = huge.export({ format: "der", type: "spki" });
  const big = Buffer.from(certificate({ key: key.key, spki })).toString("base64");
  const large = asJson(() => ({ certificates: [big] }));
  await assert.rejects(
    prove(verifier(), made, { now: NOW, payload: large }),
    refusal("invalid-argument", /RSA key has \d+ bits/),
  );
  for (const payload of [() => new Uint8Array(), () => Buffer.from("[]"), asJson(() => ({ certificates: [] }))]) {
    await assert.rejects(prove(verifier(), made, { now: NOW, payload }), refusal("invalid-argument", /./));
  }
});

test("where the address has to be in the certificate, it has to be", async (t) => {
  const key = testKey();
  const made = node(t, key, [certificate(key)]);
  const strict = verifier({ verifyClientIp: true });
  await assert.rejects(prove(strict, made, { now: NOW, address: "10.1.2.3" }), refusal("permission-denied", /address/));
});
