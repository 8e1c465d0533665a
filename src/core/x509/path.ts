import type { KeyObject } from "node:crypto";
import { keyFault, publicKeyFromSpki, verifySignature } from "./algorithm.ts";
import { type Certificate, parseCertificate, unknownCritical } from "./certificate.ts";
import { nameConstraintFault } from "./name-constraints.ts";

/** Why a chain does not lead to an authority that is trusted. */
export type PathFault =
  | "expired"
  | "not-yet-valid"
  | "unknown-authority"
  | "bad-signature"
  | "not-an-authority"
  | "path-too-long"
  | "name-constraint"
  | "unknown-critical-extension"
  | "weak-key"
  | "too-complex";

export type PathResult =
  | { readonly ok: true; readonly path: readonly Certificate[]; readonly notAfterMs: number }
  | { readonly ok: false; readonly reason: PathFault; readonly message: string };

interface Anchor {
  readonly certificate: Certificate;
  readonly key: KeyObject;
}

/** A hostile chain of look-alike issuers must not buy many signature checks at 65 µs each. */
const MAX_SIGNATURE_CHECKS = 24;

/** HOT: the same few authorities are used at every handshake. Keyed by the array itself, which nobody may change. */
const anchors = new WeakMap<Uint8Array, Anchor | null>();

/** An authority of a bundle with its key; null where it is no certificate: then nothing chains to it. */
function anchorOf(der: Uint8Array): Anchor | null {
  let anchor = anchors.get(der);
  if (anchor === undefined) {
    try {
      const certificate = parseCertificate(der);
      anchor = { certificate, key: publicKeyFromSpki(certificate.spki) };
    } catch {
      anchor = null;
    }
    anchors.set(der, anchor);
  }
  return anchor;
}

interface Search {
  readonly anchors: readonly Anchor[];
  readonly pool: readonly Certificate[];
  readonly now: number;
  readonly keyUsageRequired: boolean;
  checks: number;
  /** The most telling fault so far. */
  fault: { reason: PathFault; message: string };
}

export interface PathOptions {
  /** SPEC: X509-SVID §4.3: an authority says that it signs. RFC 5280 takes one that says nothing; so do other PKIs. Default true. */
  readonly keyUsageRequired?: boolean;
}

/**
 * Finds a path from `chain[0]` over the rest of the chain, in any order, to one of `authorities` (DER), and validates it.
 * SPEC: RFC 5280 §6.1, without policies (nothing here uses them) and revocation (SVIDs are short-lived instead).
 * The leaf's own profile (SPIFFE's, say) is the caller's to check.
 */
export function validatePath(
  chain: readonly Certificate[],
  authorities: readonly Uint8Array[],
  now: number,
  { keyUsageRequired = true }: PathOptions = {},
): PathResult {
  const [leaf, ...pool] = chain;
  if (leaf === undefined) {
    return { ok: false, reason: "unknown-authority", message: "an empty chain" };
  }
  const leafFault = timeFault(leaf, now, "certificate") ?? criticalFault(leaf) ?? weakFault(leaf);
  if (leafFault !== null) {
    return { ok: false, ...leafFault };
  }
  const search: Search = {
    anchors: authorities.map(anchorOf).filter((anchor) => anchor !== null),
    pool,
    now,
    keyUsageRequired,
    checks: 0,
    fault: { reason: "unknown-authority", message: "no authority of the bundle issued this chain" },
  };
  const path = extend([leaf], search);
  if (path === null) {
    return { ok: false, ...search.fault };
  }
  const constrained = nameConstraintFault(path);
  if (constrained !== null) {
    return { ok: false, reason: "name-constraint", message: constrained };
  }
  return { ok: true, path, notAfterMs: Math.min(...path.map((certificate) => certificate.notAfterMs)) };
}

function extend(path: readonly Certificate[], search: Search): readonly Certificate[] | null {
  const child = path.at(-1) as Certificate;
  for (const anchor of search.anchors) {
    if (mayHaveIssued(anchor.certificate, child) && accepts(anchor.certificate, anchor.key, path, search)) {
      return [...path, anchor.certificate];
    }
  }
  for (const candidate of search.pool) {
    if (!path.includes(candidate) && mayHaveIssued(candidate, child) && acceptsIntermediate(candidate, path, search)) {
      const found = extend([...path, candidate], search);
      if (found !== null) {
        return found;
      }
    }
  }
  return null;
}

/** Names must chain; key identifiers must agree where both are given. SPEC: RFC 5280 §6.1.3 (a)(4). */
function mayHaveIssued(issuer: Certificate, child: Certificate): boolean {
  return (
    Buffer.compare(issuer.subject.der, child.issuer.der) === 0 &&
    (child.authorityKeyId === null || issuer.subjectKeyId === null || child.authorityKeyId === issuer.subjectKeyId)
  );
}

function acceptsIntermediate(issuer: Certificate, path: readonly Certificate[], search: Search): boolean {
  let key: KeyObject;
  try {
    key = publicKeyFromSpki(issuer.spki);
  } catch {
    search.fault = { reason: "weak-key", message: "an intermediate's key is not usable" };
    return false;
  }
  return accepts(issuer, key, path, search);
}

/** Whether `issuer` may stand above `path`, and really signed its last certificate. */
function accepts(issuer: Certificate, key: KeyObject, path: readonly Certificate[], search: Search): boolean {
  const fault =
    timeFault(issuer, search.now, "authority") ??
    criticalFault(issuer) ??
    weakFault(issuer) ??
    authorityFault(issuer, path, search.keyUsageRequired) ??
    signatureFault(key, path.at(-1) as Certificate, search);
  if (fault === null) {
    return true;
  }
  search.fault = fault;
  return false;
}

type Fault = { readonly reason: PathFault; readonly message: string };

function timeFault(certificate: Certificate, now: number, what: string): Fault | null {
  const { notBeforeMs, notAfterMs } = certificate;
  if (now > notAfterMs) {
    return { reason: "expired", message: `the ${what} expired at ${new Date(notAfterMs).toISOString()}` };
  }
  return now < notBeforeMs
    ? { reason: "not-yet-valid", message: `the ${what} is not valid before ${new Date(notBeforeMs).toISOString()}` }
    : null;
}

function criticalFault(certificate: Certificate): Fault | null {
  const [oid] = unknownCritical(certificate);
  return oid === undefined
    ? null
    : { reason: "unknown-critical-extension", message: `critical extension ${oid} is not understood` };
}

function weakFault(certificate: Certificate): Fault | null {
  const fault = keyFault(certificate.publicKey.key);
  return fault === null ? null : { reason: "weak-key", message: fault };
}

/** SPEC: RFC 5280 §6.1.4 (k)-(n); X509-SVID §4.1, §4.3. Path length counts CAs between, self-issued ones left out. */
function authorityFault(issuer: Certificate, path: readonly Certificate[], keyUsageRequired: boolean): Fault | null {
  if (issuer.basicConstraints?.ca !== true) {
    return { reason: "not-an-authority", message: "an issuer is not a CA" };
  }
  if (!(issuer.keyUsage?.includes("keyCertSign") ?? !keyUsageRequired)) {
    return { reason: "not-an-authority", message: "an issuer may not sign certificates" };
  }
  const { pathLength } = issuer.basicConstraints;
  const below = path.slice(1).filter((ca) => Buffer.compare(ca.subject.der, ca.issuer.der) !== 0).length;
  return pathLength !== null && below > pathLength
    ? { reason: "path-too-long", message: `${below} CAs below one that allows ${pathLength}` }
    : null;
}

function signatureFault(key: KeyObject, child: Certificate, search: Search): Fault | null {
  if (search.checks++ >= MAX_SIGNATURE_CHECKS) {
    return { reason: "too-complex", message: "too many candidate issuers" };
  }
  return child.algorithm !== null && verifySignature(child.algorithm, key, child.tbs, child.signature)
    ? null
    : { reason: "bad-signature", message: "a signature does not verify" };
}
