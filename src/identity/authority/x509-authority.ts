import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { EveryhopError } from "../../core/base/errors.ts";
import { parseSpiffeId, pathOf, type SpiffeId, type TrustDomain, trustDomainOf } from "../../core/spiffe/id.ts";
import { checkedPublicKey } from "../../core/x509/algorithm.ts";
import { assembleCertificate, buildCaTbs, buildLeafTbs, keyIdentifier } from "../../core/x509/build.ts";
import { type Certificate, parseCertificate } from "../../core/x509/certificate.ts";
import { verifyCsr } from "../../core/x509/csr.ts";
import { dnsNameFault } from "../../core/x509/dns-name.ts";
import { lintTbs } from "../../core/x509/lint.ts";
import { encodeName } from "../../core/x509/name.ts";
import { certificatesToPem, formatPem, parsePem } from "../../core/x509/pem.ts";
import type { Journal } from "./journal.ts";
import { intend, Signer } from "./permit.ts";

/** What an authority of either kind needs from outside. */
export interface AuthorityContext {
  readonly trustDomain: TrustDomain;
  readonly journal: Journal;
  /** `count` random octets. */
  readonly random: (count: number) => Uint8Array;
}

export interface X509SvidRequest {
  /** A certification request, of which only the key is used, or a bare SubjectPublicKeyInfo whose holder is known. */
  readonly publicKey: { readonly csr: Uint8Array } | { readonly spki: Uint8Array };
  readonly spiffeId: SpiffeId;
  readonly ttlMs: number;
  readonly dnsNames?: readonly string[];
  /** Why it may have it: see IssuanceIntent. */
  readonly entryId: string;
}

export interface IssuedX509Svid {
  readonly id: SpiffeId;
  /** DER, leaf first, no root. */
  readonly chain: readonly Uint8Array[];
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** subjectKeyIdentifier of the CA that signed. */
  readonly authorityId: string;
}

/** Against clocks of verifiers that are slow. As SPIRE. */
export const BACKDATE_MS = 10_000;
const ALGORITHM = "ecdsa-sha256";
const LEAF_SUBJECT = encodeName([
  { type: "C", value: "US" },
  { type: "O", value: "everyhop" },
]);

const wholeSeconds = (ms: number): number => Math.floor(ms / 1000) * 1000;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** A serial number: 16 octets, all but one bit random, never zero. */
function randomSerial(random: AuthorityContext["random"]): Uint8Array {
  const serial = random(16);
  // Ends the need to ask whether it is zero, or so small that it looks counted.
  serial[0] = (serial[0] as number) | 0x40;
  return serial;
}

/** One CA of the trust domain: a certificate and the key that signs under it. */
export class X509Authority {
  /** subjectKeyIdentifier, lower-case hex: SPIRE's authority ID. */
  readonly id: string;
  readonly certificate: Certificate;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
  readonly #signer: Signer;
  readonly #context: AuthorityContext;

  constructor(context: AuthorityContext, certificate: Certificate, key: KeyObject) {
    if (certificate.subjectKeyId === null) {
      throw new EveryhopError("storage-failed", "a CA certificate has no subjectKeyIdentifier");
    }
    this.id = certificate.subjectKeyId;
    this.certificate = certificate;
    this.issuedAtMs = certificate.notBeforeMs + BACKDATE_MS;
    this.notAfterMs = certificate.notAfterMs;
    this.#signer = new Signer(key);
    this.#context = context;
  }

  /** Builds, lints, intends, signs, records. Errors: `invalid-argument` for a bad request or key, `failed-precondition`. */
  async issue(request: X509SvidRequest, now: number): Promise<IssuedX509Svid> {
    const { spiffeId, entryId, dnsNames = [] } = request;
    const { trustDomain, journal, random } = this.#context;
    checkNames(spiffeId, dnsNames, trustDomain);
    const spki = keyOf(request);
    const serialOctets = randomSerial(random);
    const serial = hex(serialOctets);
    const notBeforeMs = wholeSeconds(now - BACKDATE_MS);
    const notAfterMs = wholeSeconds(Math.min(now + request.ttlMs, this.notAfterMs));
    if (notAfterMs <= now) {
      throw new EveryhopError("failed-precondition", `nothing can be signed for \`${spiffeId}\` that is still valid`, {
        hint: "the lifetime asked for is under a second, or the authority is about to expire",
      });
    }
    const tbs = buildLeafTbs({
      serial: serialOctets,
      algorithm: ALGORITHM,
      issuer: this.certificate.subject.der,
      subject: LEAF_SUBJECT,
      notBeforeMs,
      notAfterMs,
      spki,
      authorityKeyId: Buffer.from(this.id, "hex"),
      spiffeId,
      dnsNames,
    });
    const lint = (bytes: Uint8Array) => this.#lintLeaf(bytes, request, spki, now);
    const intent = { kind: "x509-svid", serial, spiffeId, entryId, authorityId: this.id } as const;
    const permit = await intend(tbs, lint, { ...intent, notBeforeMs, notAfterMs, dnsNames, audiences: [] }, journal);
    const signed = this.#signer.sign(permit);
    const der = assembleCertificate(signed.bytes, ALGORITHM, () => signed.signature);
    await journal.record(serial, der);
    return { id: spiffeId, chain: [der], serial, notBeforeMs, notAfterMs, authorityId: this.id };
  }

  #lintLeaf(tbs: Uint8Array, request: X509SvidRequest, spki: Uint8Array, now: number): readonly string[] {
    return lintTbs(tbs, {
      kind: "leaf",
      spiffeId: request.spiffeId,
      dnsNames: request.dnsNames ?? [],
      spki,
      issuer: this.certificate.subject.der,
      issuerKeyId: this.id,
      nowMs: now,
      issuerNotAfterMs: this.notAfterMs,
      maxLifetimeMs: request.ttlMs,
    });
  }
}

function checkNames(spiffeId: SpiffeId, dnsNames: readonly string[], trustDomain: TrustDomain): void {
  if (trustDomainOf(spiffeId) !== trustDomain) {
    throw new EveryhopError("invalid-argument", `\`${spiffeId}\` is not in the trust domain \`${trustDomain}\``);
  }
  if (pathOf(spiffeId) === "") {
    throw new EveryhopError(
      "invalid-argument",
      `\`${spiffeId}\` is the root of its trust domain and names no workload`,
    );
  }
  for (const name of dnsNames) {
    const fault = dnsNameFault(name);
    if (fault !== null) {
      throw new EveryhopError("invalid-argument", `the DNS name \`${name}\` ${fault}`);
    }
  }
}

function keyOf(request: X509SvidRequest): Uint8Array {
  if ("csr" in request.publicKey) {
    return verifyCsr(request.publicKey.csr).spki;
  }
  const { spki } = request.publicKey;
  checkedPublicKey(spki);
  return spki;
}

/**
 * Makes a self-signed CA: ECDSA P-256, SPIFFE's profile for a signing certificate, a URI name that is the trust domain.
 * Also returns what to keep of it: PEM with the private key and the certificate. SPEC: X509-SVID §4, Appendix A.
 */
export async function createX509Authority(
  context: AuthorityContext,
  ttlMs: number,
  now: number,
): Promise<{ readonly authority: X509Authority; readonly pem: string }> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ format: "der", type: "spki" });
  const keyId = keyIdentifier(spki);
  const serialOctets = randomSerial(context.random);
  const serial = hex(serialOctets);
  // A subject of its own for each CA, or verifiers would try every root of the bundle on every chain.
  const subject = encodeName([
    { type: "C", value: "US" },
    { type: "O", value: "everyhop" },
    { type: "serialNumber", value: BigInt(`0x${serial}`).toString() },
  ]);
  const spiffeId = parseSpiffeId(`spiffe://${context.trustDomain}`);
  const notBeforeMs = wholeSeconds(now - BACKDATE_MS);
  const notAfterMs = wholeSeconds(now + ttlMs);
  const template = {
    serial: serialOctets,
    algorithm: ALGORITHM,
    issuer: subject,
    subject,
    notBeforeMs,
    notAfterMs,
  } as const;
  const tbs = buildCaTbs({ ...template, spki, authorityKeyId: keyId, spiffeId, pathLength: null });
  const authorityId = hex(keyId);
  const expected = { spiffeId, dnsNames: [], spki, issuer: subject, issuerKeyId: authorityId, nowMs: now };
  const lint = (own: Uint8Array) =>
    lintTbs(own, { kind: "ca", ...expected, issuerNotAfterMs: notAfterMs, maxLifetimeMs: ttlMs });
  const intent = {
    kind: "x509-ca",
    serial,
    spiffeId,
    entryId: "authority",
    authorityId,
    notBeforeMs,
    notAfterMs,
  } as const;
  const permit = await intend(tbs, lint, { ...intent, dnsNames: [], audiences: [] }, context.journal);
  const signed = new Signer(privateKey).sign(permit);
  const der = assembleCertificate(signed.bytes, ALGORITHM, () => signed.signature);
  await context.journal.record(serial, der);
  const authority = new X509Authority(context, parseCertificate(der), privateKey);
  const key = privateKey.export({ format: "der", type: "pkcs8" });
  return { authority, pem: formatPem("PRIVATE KEY", key) + certificatesToPem([der]) };
}

/** Reads what `createX509Authority` gave to keep. Errors: `storage-failed` where key and certificate do not belong together. */
export function loadX509Authority(context: AuthorityContext, pem: string): X509Authority {
  try {
    const blocks = parsePem(pem);
    const keyDer = blocks.find((block) => block.label === "PRIVATE KEY")?.der;
    const der = blocks.find((block) => block.label === "CERTIFICATE")?.der;
    if (keyDer === undefined || der === undefined) {
      throw new Error("key or certificate is missing");
    }
    const key = createPrivateKey({ key: Buffer.from(keyDer), format: "der", type: "pkcs8" });
    const certificate = parseCertificate(der);
    const spki = createPublicKey(key).export({ format: "der", type: "spki" });
    if (Buffer.compare(spki, certificate.spki) !== 0) {
      throw new Error("the key is not the certificate's");
    }
    return new X509Authority(context, certificate, key);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new EveryhopError("storage-failed", `a stored CA cannot be used: ${why}`, { cause });
  }
}
