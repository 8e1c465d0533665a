/** An upstream authority in files: a CA certificate and its key, read at each use, so that what changed is used next. */
import { createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Clock } from "../../../core/base/clock.ts";
import { EveryhopError } from "../../../core/base/errors.ts";
import type { TrustDomain } from "../../../core/spiffe/id.ts";
import { digestOf, parsePublicKeyInfo, type SignatureAlgorithm } from "../../../core/x509/algorithm.ts";
import { assembleCertificate, buildCaTbs, keyIdentifier } from "../../../core/x509/build.ts";
import { type Certificate, parseCertificate } from "../../../core/x509/certificate.ts";
import { verifyCsr } from "../../../core/x509/csr.ts";
import { lintTbs } from "../../../core/x509/lint.ts";
import { encodeName } from "../../../core/x509/name.ts";
import { validatePath } from "../../../core/x509/path.ts";
import { certificatesFromPem, parsePem } from "../../../core/x509/pem.ts";
import type { Upstream } from "../../authority/upstream.ts";
import type { KnownBundle } from "./known-bundle.ts";

export interface DiskUpstreamConfig {
  readonly kind: "disk";
  /** PEM: the CA, and intermediates above it. */
  readonly certFile: string;
  readonly keyFile: string;
  /** PEM: the roots it leads to; not needed where the CA is one. */
  readonly bundleFile?: string;
}

export interface DiskUpstreamOptions {
  readonly config: DiskUpstreamConfig;
  readonly trustDomain: TrustDomain;
  readonly known: KnownBundle;
  readonly clock: Clock;
  readonly random: (count: number) => Uint8Array;
}

const BACKDATE_MS = 10_000;

/** Errors of what it does: `file-missing`, `config-invalid`, `failed-precondition`. */
export function diskUpstream({ config, trustDomain, known, clock, random }: DiskUpstreamOptions): Upstream {
  return {
    bundle: known.bundle,
    publish: null,
    taint: (id) => known.taint(id),
    revoke: (id) => known.revoke(id),
    async certify(csr, ttlMs) {
      const now = clock.now();
      const authority = readAuthority(config, now);
      const der = signCa(authority, { csr, ttlMs, trustDomain, now, random });
      // Those before stay: what they lead to is still in use. What has expired goes.
      await known.learn((before) => ({
        ...before,
        x509Authorities: distinct([...before.x509Authorities, ...authority.roots]).filter(
          (root) => parseCertificate(root).notAfterMs > now,
        ),
      }));
      return [der, ...authority.chain];
    },
  };
}

interface FileAuthority {
  readonly certificate: Certificate;
  readonly key: KeyObject;
  /** It and those above it, root left out. */
  readonly chain: readonly Uint8Array[];
  readonly roots: readonly Uint8Array[];
}

function readAuthority({ certFile, keyFile, bundleFile }: DiskUpstreamConfig, now: number): FileAuthority {
  const given = readCertificates(certFile);
  const roots = bundleFile === undefined ? given.slice(-1) : readCertificates(bundleFile);
  const [certificate] = given.map(parseCertificate);
  const key = readKey(keyFile);
  const fault = (why: string): EveryhopError =>
    new EveryhopError("config-invalid", `the upstream authority \`${certFile}\` cannot be used: ${why}`, {
      hint: "`upstreamAuthority` names a CA's certificate, its key, and in `bundleFile` the roots it leads to",
    });
  if (certificate === undefined) {
    throw fault("the file has no certificate");
  }
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  if (Buffer.compare(spki, certificate.spki) !== 0) {
    throw fault(`\`${keyFile}\` is not its key`);
  }
  if (certificate.basicConstraints?.ca !== true || !(certificate.keyUsage ?? []).includes("keyCertSign")) {
    throw fault("it is no CA");
  }
  const { pathLength } = certificate.basicConstraints;
  if (pathLength !== null && pathLength < 1) {
    throw fault("its path length leaves no room for a CA below it");
  }
  const isRoot = roots.some((root) => Buffer.compare(root, certificate.der) === 0);
  const path = isRoot ? null : validatePath(given.map(parseCertificate), roots, now);
  if (path?.ok === false) {
    throw fault(bundleFile === undefined ? `${path.message}: \`bundleFile\` is missing` : path.message);
  }
  const chain = given.filter((der) => !roots.some((root) => Buffer.compare(root, der) === 0));
  return { certificate, key, chain, roots };
}

interface Wanted {
  readonly csr: Uint8Array;
  readonly ttlMs: number;
  readonly trustDomain: TrustDomain;
  readonly now: number;
  readonly random: (count: number) => Uint8Array;
}

/** SPEC: X509-SVID §4. Linted as all that we sign. */
function signCa(
  { certificate, key, chain }: FileAuthority,
  { csr, ttlMs, trustDomain, now, random }: Wanted,
): Uint8Array {
  const { spki } = verifyCsr(csr);
  const serial = random(16);
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40;
  const algorithm = algorithmOf(certificate.spki);
  const end = Math.min(now + ttlMs, certificate.notAfterMs, ...chain.map((der) => parseCertificate(der).notAfterMs));
  const wholeSeconds = (ms: number): number => Math.floor(ms / 1_000) * 1_000;
  const authorityKeyId = Buffer.from(
    certificate.subjectKeyId ?? Buffer.from(keyIdentifier(certificate.spki)).toString("hex"),
    "hex",
  );
  const serialNumber = BigInt(`0x${Buffer.from(serial).toString("hex")}`).toString();
  const subject = [
    { type: "C", value: "US" },
    { type: "O", value: "everyhop" },
    { type: "serialNumber", value: serialNumber },
  ] as const;
  const issuer = certificate.subject.der;
  const spiffeId = `spiffe://${trustDomain}`;
  const times = { notBeforeMs: wholeSeconds(now - BACKDATE_MS), notAfterMs: wholeSeconds(end) };
  const names = { issuer, subject: encodeName([...subject]), spiffeId, pathLength: null };
  const tbs = buildCaTbs({ serial, algorithm, ...names, ...times, spki, authorityKeyId });
  const faults = lintTbs(tbs, {
    kind: "ca",
    algorithm,
    serial: Buffer.from(serial).toString("hex"),
    spiffeId,
    dnsNames: [],
    spki,
    issuer,
    issuerKeyId: authorityKeyId.toString("hex"),
    nowMs: now,
    issuerNotAfterMs: end,
    maxLifetimeMs: ttlMs,
  });
  if (faults.length > 0) {
    throw new EveryhopError("failed-precondition", `the upstream authority refused to sign: ${faults.join("; ")}`, {
      hint: "it may be about to expire",
    });
  }
  return assembleCertificate(tbs, algorithm, (bytes) => sign(digestOf(algorithm), bytes, key));
}

function algorithmOf(spki: Uint8Array): SignatureAlgorithm {
  const { key } = parsePublicKeyInfo(spki);
  if (key.kind === "rsa") {
    return "rsa-sha256";
  }
  if (key.kind === "ed25519") {
    return "ed25519";
  }
  return key.kind === "ec" && key.curve === "P-384" ? "ecdsa-sha384" : "ecdsa-sha256";
}

function distinct(ders: readonly Uint8Array[]): Uint8Array[] {
  return [...new Map(ders.map((der) => [Buffer.from(der).toString("base64"), der])).values()];
}

function readCertificates(file: string): readonly Uint8Array[] {
  const text = readText(file);
  try {
    const certificates = certificatesFromPem(text);
    certificates.forEach(parseCertificate);
    return certificates;
  } catch (cause) {
    throw new EveryhopError("config-invalid", `\`${file}\` holds no certificates: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function readKey(file: string): KeyObject {
  const text = readText(file);
  try {
    parsePem(text);
    return createPrivateKey(text);
  } catch (cause) {
    throw new EveryhopError("config-invalid", `\`${file}\` holds no private key`, {
      hint: "PEM without a password is expected",
      cause,
    });
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, {
      hint: "`upstreamAuthority` names the files of the authority above ours",
      cause,
    });
  }
}
