import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { without } from "../../../test/peers.ts";
import { parseCertificate } from "./certificate.ts";
import { verifyCsr } from "./csr.ts";
import { CA_EXTENSIONS, HOUR, LEAF_EXTENSIONS, NOW, rawCa, rawCertificate, testCa, testLeaf } from "./fixture.ts";
import { validatePath } from "./path.ts";
import { certificatesFromPem, formatPem, parsePem } from "./pem.ts";

const options = { skip: without("openssl") };
const folder = mkdtempSync(join(tmpdir(), "everyhop-openssl-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, ders: readonly Uint8Array[]): string {
  const path = join(folder, name);
  writeFileSync(path, ders.map((der) => formatPem("CERTIFICATE", der)).join(""));
  return path;
}

function opensslAccepts(
  leaf: Uint8Array,
  pool: readonly Uint8Array[],
  root: Uint8Array,
  at: number,
  purpose: string,
): string {
  const args = ["verify", "-x509_strict", "-purpose", purpose, "-attime", String(Math.floor(at / 1000))];
  const untrusted = pool.length === 0 ? [] : ["-untrusted", file("pool.pem", pool)];
  const run = spawnSync("openssl", [
    ...args,
    "-CAfile",
    file("root.pem", [root]),
    ...untrusted,
    file("leaf.pem", [leaf]),
  ]);
  return run.status === 0 ? "" : run.stderr.toString() + run.stdout.toString();
}

test("what we write passes OpenSSL's strict checks, for servers and for clients", options, () => {
  const root = testCa("root");
  const middle = testCa("middle", { pathLength: 0 }, root);
  const leaf = testLeaf(middle, "spiffe://example.com/a", { dnsNames: ["a.example.com"] });
  for (const purpose of ["sslserver", "sslclient"]) {
    assert.equal(opensslAccepts(leaf, [middle.der], root.der, NOW, purpose), "");
  }
  const empty = testLeaf(root, "spiffe://example.com/a", { subject: Buffer.from("3000", "hex") });
  assert.equal(opensslAccepts(empty, [], root.der, NOW, "sslserver"), "");
});

test("path validation agrees with OpenSSL's", options, async (t) => {
  const root = testCa("root");
  const uris = ["spiffe://example.com/a"];
  const good = { ...CA_EXTENSIONS } as const;
  const zero = rawCa("zero", { ...good, basicConstraints: [true, 0] }, root);
  const middles = {
    plain: rawCa("plain", good, root),
    "not a CA": rawCa("not a CA", { ...good, basicConstraints: [false] }, root),
    "no keyCertSign": rawCa("no keyCertSign", { ...good, keyUsage: ["cRLSign"] }, root),
    expired: rawCa("expired", { ...good, notAfterMs: NOW - HOUR }, root),
    "of tomorrow": rawCa("of tomorrow", { ...good, notBeforeMs: NOW + HOUR }, root),
    "below a path length of 0": rawCa("below", good, zero),
    "permits example.com": rawCa("permits", { ...good, permittedUris: ["example.com"] }, root),
    "permits other.test": rawCa("permits other", { ...good, permittedUris: ["other.test"] }, root),
    "excludes example.com": rawCa("excludes", { ...good, excludedUris: ["example.com"] }, root),
    "permits DNS of other.test": rawCa("permits dns", { ...good, permittedDns: ["other.test"] }, root),
  };
  const leaves = {
    plain: {},
    expired: { notAfterMs: NOW - HOUR },
    "with a DNS name": { dnsNames: ["a.other.test"] },
    "with another DNS name": { dnsNames: ["another.test"] },
    "with an issuer of another name": { issuerName: root.name },
  };
  for (const [middleName, middle] of Object.entries(middles)) {
    for (const [leafName, leafOptions] of Object.entries(leaves)) {
      await t.test(`${leafName} leaf, middle ${middleName}`, () => {
        const leaf = rawCertificate(middle, { ...LEAF_EXTENSIONS, uris, ...leafOptions });
        const pool = [middle.der, zero.der];
        const ours = validatePath([leaf, ...pool].map(parseCertificate), [root.der], NOW);
        // Not -x509_strict: these lack key identifiers.
        const run = spawnSync("openssl", [
          ...["verify", "-attime", String(NOW / 1000), "-CAfile", file("root.pem", [root.der])],
          ...["-untrusted", file("pool.pem", pool), file("leaf.pem", [leaf])],
        ]);
        assert.equal(ours.ok, run.status === 0, `${ours.ok ? "accepted" : ours.reason}; ${run.stderr}`);
      });
    }
  }
});

test("requests that OpenSSL makes are read, of every key type", options, async (t) => {
  const kinds: readonly (readonly [string, readonly string[]])[] = [
    ["P-256", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]],
    ["P-384", ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]],
    ["RSA", ["rsa:2048"]],
    ["Ed25519", ["ed25519"]],
  ];
  for (const [name, key] of kinds) {
    await t.test(name, () => {
      const args = ["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/O=test/CN=a,b", "-newkey", ...key];
      const pem = execFileSync("openssl", [...args, "-addext", "subjectAltName=URI:spiffe://example.com/a,DNS:a.b"], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      const [block] = parsePem(pem.toString());
      assert.equal(block?.label, "CERTIFICATE REQUEST");
      const request = verifyCsr(block?.der ?? new Uint8Array());
      assert.deepEqual(request.names?.uris, ["spiffe://example.com/a"]);
      assert.deepEqual(request.names?.dnsNames, ["a.b"]);
    });
  }
});

test("certificates that OpenSSL makes are read, of every key type", options, async (t) => {
  for (const key of [["rsa:2048"], ["ed25519"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-521"]]) {
    await t.test(key.join(" "), () => {
      const args = [
        "req",
        "-x509",
        "-nodes",
        "-keyout",
        "/dev/null",
        "-subj",
        "/C=US/O=Ünïcode",
        "-utf8",
        "-newkey",
        ...key,
      ];
      const pem = execFileSync("openssl", [...args, "-days", "1", "-addext", "keyUsage=critical,keyCertSign"], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      const certificate = parseCertificate(certificatesFromPem(pem.toString())[0] as Uint8Array);
      assert.deepEqual(certificate.subject.attributes[1], { type: "O", value: "Ünïcode" });
      assert.ok(validatePath([certificate], [certificate.der], certificate.notBeforeMs + 1).ok, "self-signed");
    });
  }
});
