import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { skipWithout } from "../../../../../test/peers.ts";
import { asJson, prove, refusal } from "../fixture.ts";
import { parseSshCertificate } from "./certificate.ts";
import { sshpopProof } from "./prove.ts";
import { type SshPopOptions, sshpopVerifier } from "./verify.ts";
import { sshString, verifySsh } from "./wire.ts";

const NOW = Date.UTC(2030, 0, 1);
const SECONDS = BigInt(NOW / 1_000);

interface Ed25519 {
  readonly key: KeyObject;
  readonly blob: Buffer;
}

function ed25519(): Ed25519 {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const { x = "" } = publicKey.export({ format: "jwk" });
  return { key: privateKey, blob: Buffer.concat([sshString("ssh-ed25519"), sshString(Buffer.from(x, "base64url"))]) };
}

const line = ({ blob }: { readonly blob: Buffer }) => `ssh-ed25519 ${blob.toString("base64")} ca`;
const uint64 = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
};

interface Made {
  readonly kind?: number;
  readonly principals?: readonly string[];
  readonly after?: bigint;
  readonly before?: bigint;
  readonly options?: Buffer;
}

/** A certificate as ssh-keygen makes it. */
function certify(ca: Ed25519, host: Ed25519, made: Made = {}): Buffer {
  const { kind = 2, principals = ["web.example.org"], after = 0n, before = SECONDS + 60n } = made;
  const body = Buffer.concat([
    sshString("ssh-ed25519-cert-v01@openssh.com"),
    sshString(Buffer.alloc(32, 7)),
    host.blob.subarray(4 + "ssh-ed25519".length),
    uint64(5n),
    Buffer.of(0, 0, 0, kind),
    sshString("key-id"),
    sshString(Buffer.concat(principals.map((name) => sshString(name)))),
    uint64(after),
    uint64(before),
    sshString(made.options ?? ""),
    sshString(""),
    sshString(""),
    sshString(ca.blob),
  ]);
  const signature = Buffer.concat([sshString("ssh-ed25519"), sshString(sign(null, body, ca.key))]);
  return Buffer.concat([body, sshString(signature)]);
}

function node(t: TestContext, host: Ed25519, certificate: Buffer) {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-sshpop-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const [hostKeyFile, hostCertificateFile] = [join(dir, "key"), join(dir, "key-cert.pub")];
  writeFileSync(hostKeyFile, host.key.export({ format: "pem", type: "pkcs8" }));
  writeFileSync(hostCertificateFile, `ssh-ed25519-cert-v01@openssh.com ${certificate.toString("base64")} x\n`);
  return sshpopProof({ hostKeyFile, hostCertificateFile });
}

const CA = ed25519();
const verifier = (options: Partial<SshPopOptions> = {}) => sshpopVerifier({ certAuthorities: [line(CA)], ...options });

test("a host with a certificate is known by it, or by its name", async (t) => {
  const host = ed25519();
  const certificate = certify(CA, host);
  const made = node(t, host, certificate);
  const fingerprint = createHash("sha256").update(certificate).digest("base64url");
  const found = await prove(verifier(), made, { now: NOW });
  assert.deepEqual(found, { path: `/spire/agent/sshpop/${fingerprint}`, selectors: [], reattestable: true });
  const named = verifier({ canonicalDomain: "example.org", agentPathTemplate: "/sshpop/{{ .Hostname }}" });
  assert.equal((await prove(named, made, { now: NOW })).path, "/spire/agent/sshpop/web");
  const elsewhere = verifier({ canonicalDomain: "example.net" });
  await assert.rejects(prove(elsewhere, made, { now: NOW }), refusal("permission-denied", /not in domain/));
});

test("what is no host's certificate now, by an authority of ours, is refused", async (t) => {
  const host = ed25519();
  const table: [string, Buffer, RegExp][] = [
    ["a user's", certify(CA, host, { kind: 1 }), /a user's, not a host's/],
    ["of another authority", certify(ed25519(), host), /no authority that is trusted/],
    ["of no host", certify(CA, host, { principals: [] }), /no valid principals/],
    ["expired", certify(CA, host, { before: SECONDS }), /expired/],
    ["of the future", certify(CA, host, { after: SECONDS + 1n }), /not yet valid/],
    [
      "with an option",
      certify(CA, host, { options: Buffer.concat([sshString("force"), sshString("x")]) }),
      /critical option/,
    ],
  ];
  for (const [what, certificate, message] of table) {
    const attempt = prove(verifier(), node(t, host, certificate), { now: NOW });
    await assert.rejects(attempt, refusal("permission-denied", message), what);
  }
  const forged = certify(CA, host);
  forged[60] = (forged[60] ?? 0) ^ 1;
  await assert.rejects(prove(verifier(), node(t, host, forged), { now: NOW }), (error: Error) =>
    /does not verify|failed to verify signature|not usable/.test(error.message),
  );
});

test("the certificate alone proves nothing: its key has to sign the challenge", async (t) => {
  const [host, thief] = [ed25519(), ed25519()];
  const certificate = certify(CA, host);
  const stolen = node(t, thief, certificate);
  await assert.rejects(prove(verifier(), stolen, { now: NOW }), refusal("permission-denied", /failed to verify/));
  const made = node(t, host, certificate);
  const other = asJson((answer) => ({ ...answer, Signature: { Format: "ssh-rsa", Blob: "AAAA", Rest: null } }));
  await assert.rejects(prove(verifier(), made, { now: NOW, answer: other }), refusal("permission-denied", /failed/));
  const short = asJson((answer) => ({ ...answer, Nonce: "AAAA" }));
  await assert.rejects(prove(verifier(), made, { now: NOW, answer: short }), refusal("invalid-argument", /nonce/));
});

test("certificates and keys of ssh-keygen, of every type", async (t) => {
  if (skipWithout(t, "ssh-keygen")) {
    return;
  }
  const dir = mkdtempSync(join(tmpdir(), "everyhop-ssh-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const keygen = (...args: string[]) => execFileSync("ssh-keygen", ["-q", ...args], { cwd: dir, stdio: "pipe" });
  keygen("-t", "rsa", "-b", "2048", "-N", "", "-f", "ca");
  const verifiers = sshpopVerifier({ certAuthorities: [readFileSync(join(dir, "ca.pub"), "utf8")] });
  for (const [type, ...bits] of [["rsa", "-b", "2048"], ["ecdsa", "-b", "384"], ["ed25519"]] as string[][]) {
    const name = `host_${type}`;
    keygen("-t", type as string, ...bits, "-N", "", "-f", name);
    keygen("-s", "ca", "-h", "-I", name, "-n", `${type}.example.org`, "-V", "+1h", `${name}.pub`);
    const files = { hostKeyFile: join(dir, name), hostCertificateFile: join(dir, `${name}-cert.pub`) };
    const found = await prove(verifiers, sshpopProof(files));
    assert.match(found.path, /^\/spire\/agent\/sshpop\/[\w-]{43}$/, type);
  }
});

test("SPIRE's agent signs with SHA-1 by an RSA key: taken for the challenge, never for a certificate", () => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const message = Buffer.from("m");
  const key = { type: "ssh-rsa", key: publicKey };
  const signature = {
    format: "ssh-rsa",
    blob: sign("sha1", message, createPrivateKey(privateKey.export({ format: "pem", type: "pkcs1" }))),
  };
  assert.equal(verifySsh(key, message, signature, { sha1: true }), true);
  assert.equal(verifySsh(key, message, signature), false);
});

test("any bytes are a certificate or refused, never a crash", () => {
  const whole = certify(CA, ed25519());
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, octet, length) => {
      const bytes = Buffer.from(whole);
      bytes[at] = octet;
      try {
        parseSshCertificate(bytes.subarray(0, length));
      } catch (error) {
        assert.equal((error as { code?: string }).code, "invalid-argument", String(error));
      }
    }),
    { numRuns: 500 },
  );
});
