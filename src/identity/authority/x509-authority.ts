import { EveryhopError } from "../../core/base/errors.ts";
import { parseSpiffeId, pathOf, type SpiffeId, type TrustDomain, trustDomainOf } from "../../core/spiffe/id.ts";
import { checkedPublicKey } from "../../core/x509/algorithm.ts";
import { type Certificate, parseCertificate } from "../../core/x509/certificate.ts";
import { verifyCsr } from "../../core/x509/csr.ts";
import { dnsNameFault } from "../../core/x509/dns-name.ts";
import type { KeyType } from "../intent/key-type.ts";
import { type AuthorityContext, newSerial, signIntent, wholeSeconds } from "./sign.ts";
import { checkedChain, type Upstream } from "./upstream.ts";

export interface X509SvidRequest {
  /** A certification request, of which only the key is used, or a bare SubjectPublicKeyInfo whose holder is known. */
  readonly publicKey: { readonly csr: Uint8Array } | { readonly spki: Uint8Array };
  readonly spiffeId: SpiffeId;
  readonly ttlMs: number;
  readonly dnsNames?: readonly string[];
  /** Why it may have it: see IssuanceIntent. */
  readonly entryId: string;
}

export interface DownstreamCaRequest {
  /** Of which only the key is used. */
  readonly csr: Uint8Array;
  readonly ttlMs: number;
  /** The downstream entry. */
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

/** One CA of the trust domain. Its key is the signer's; here is its certificate, and what is asked of it. */
export class X509Authority {
  /** subjectKeyIdentifier, lower-case hex: SPIRE's authority ID. */
  readonly id: string;
  readonly certificate: Certificate;
  readonly issuedAtMs: number;
  readonly notAfterMs: number;
  /** Its certificate and those above it, root left out: what goes with every leaf. Of a root it is empty. */
  readonly chain: readonly Uint8Array[];
  /** subjectKeyIdentifier of the upstream authority at the top; null where it is a root itself. */
  readonly upstreamId: string | null;
  readonly #context: AuthorityContext;

  /** `above`: certificates between it and a root, where an upstream authority certified it. */
  constructor(context: AuthorityContext, certificate: Certificate, above: readonly Uint8Array[] = []) {
    if (certificate.subjectKeyId === null) {
      throw new EveryhopError("storage-failed", "a CA certificate has no subjectKeyIdentifier");
    }
    this.id = certificate.subjectKeyId;
    this.certificate = certificate;
    this.issuedAtMs = certificate.notBeforeMs + BACKDATE_MS;
    const isRoot = Buffer.compare(certificate.issuer.der, certificate.subject.der) === 0;
    this.chain = isRoot ? [] : [certificate.der, ...above];
    const top = this.chain.at(-1);
    this.upstreamId = top === undefined ? null : parseCertificate(top).authorityKeyId;
    // Nothing below outlives anything above.
    this.notAfterMs = Math.min(certificate.notAfterMs, ...above.map((der) => parseCertificate(der).notAfterMs));
    this.#context = context;
  }

  /** What is kept of it: its certificate first. */
  get published(): readonly Uint8Array[] {
    return this.chain.length === 0 ? [this.certificate.der] : this.chain;
  }

  /** Has an SVID signed. Errors: `invalid-argument` for a bad request or key, `failed-precondition`, those of `signIntent`. */
  async issue(request: X509SvidRequest, now: number): Promise<IssuedX509Svid> {
    const { spiffeId, entryId, dnsNames = [] } = request;
    checkNames(spiffeId, dnsNames, this.#context.trustDomain);
    const spki = keyOf(request);
    const serial = newSerial(this.#context.random, now);
    const notBeforeMs = wholeSeconds(now - BACKDATE_MS);
    const notAfterMs = wholeSeconds(Math.min(now + request.ttlMs, this.notAfterMs));
    if (notAfterMs <= now) {
      throw new EveryhopError("failed-precondition", `nothing can be signed for \`${spiffeId}\` that is still valid`, {
        hint: "the lifetime asked for is under a second, or the authority is about to expire",
      });
    }
    const authorityId = this.id;
    const intent = {
      kind: "x509-svid",
      authorityId,
      serial,
      spki,
      spiffeId,
      dnsNames,
      notBeforeMs,
      notAfterMs,
    } as const;
    const der = await signIntent(this.#context, intent, { spiffeId, entryId, dnsNames, audiences: [] });
    return { id: spiffeId, chain: [der, ...this.chain], serial, notBeforeMs, notAfterMs, authorityId };
  }

  /**
   * Has the CA of a server below us certified; DER, its certificate first, root left out. Errors: as `issue`;
   * `failed-precondition` where ours may have none below it.
   */
  async certify({ csr, ttlMs, entryId }: DownstreamCaRequest, now: number): Promise<readonly Uint8Array[]> {
    const { spki } = verifyCsr(csr);
    const room = this.certificate.basicConstraints?.pathLength ?? null;
    if (room !== null && room < 1) {
      throw new EveryhopError("failed-precondition", "this server's CA may have no other CA below it", {
        hint: "its upstream authority limits the path length",
      });
    }
    const serial = newSerial(this.#context.random, now);
    const notBeforeMs = wholeSeconds(now - BACKDATE_MS);
    const notAfterMs = wholeSeconds(Math.min(now + ttlMs, this.notAfterMs));
    const intent = { kind: "x509-ca", authorityId: this.id, serial, spki, notBeforeMs, notAfterMs } as const;
    const spiffeId = parseSpiffeId(`spiffe://${this.#context.trustDomain}`);
    const der = await signIntent(this.#context, intent, { spiffeId, entryId, dnsNames: [], audiences: [] });
    return [der, ...this.chain];
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
 * Has a self-signed CA made: SPIFFE's profile for a signing certificate, a URI name that is the trust domain.
 * SPEC: X509-SVID §4, Appendix A. Errors: those of `signIntent`.
 */
export async function createX509Authority(
  context: AuthorityContext,
  type: KeyType,
  ttlMs: number,
  now: number,
): Promise<X509Authority> {
  const { id, spki } = await context.signer.createKey("x509", type);
  const serial = newSerial(context.random, now);
  const notBeforeMs = wholeSeconds(now - BACKDATE_MS);
  const notAfterMs = wholeSeconds(now + ttlMs);
  const spiffeId = parseSpiffeId(`spiffe://${context.trustDomain}`);
  const intent = { kind: "x509-ca", authorityId: id, serial, spki, notBeforeMs, notAfterMs } as const;
  const der = await signIntent(context, intent, { spiffeId, entryId: "authority", dnsNames: [], audiences: [] });
  await context.signer.adopt(id, [der]);
  return new X509Authority(context, parseCertificate(der));
}

/** Has a CA made that `upstream` certifies; its key goes where that fails. Errors: those of `Upstream.certify`, `checkedChain`. */
export async function createCertifiedAuthority(
  context: AuthorityContext,
  upstream: Upstream,
  type: KeyType,
  ttlMs: number,
  now: number,
): Promise<X509Authority> {
  const { signer, random } = context;
  const { id, spki } = await signer.createKey("x509", type);
  try {
    const permit = await signer.prepare({ kind: "x509-csr", authorityId: id, serial: newSerial(random, now) });
    const chain = await upstream.certify(await signer.sign(permit), ttlMs);
    const certificate = checkedChain(chain, spki, upstream.bundle.value, now);
    await signer.adopt(id, chain);
    return new X509Authority(context, certificate, chain.slice(1));
  } catch (error) {
    await signer.discard("x509", id).catch(() => {});
    throw error;
  }
}
