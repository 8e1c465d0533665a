import { type Certificate, parseCertificate } from "../x509/certificate.ts";
import { EKU } from "../x509/extensions.ts";
import { type PathFault, validatePath } from "../x509/path.ts";
import { pathOf, type SpiffeId, spiffeIdFault, type TrustDomain, trustDomainOf } from "./id.ts";
import type { X509Bundles } from "./svid.ts";

/** Why a peer's chain proves no identity. Stable: they label metrics and logs. */
export type X509SvidFault =
  | PathFault
  | "no-certificate"
  | "chain-too-long"
  | "malformed"
  | "no-spiffe-id"
  | "several-uri-names"
  | "root-path"
  | "leaf-is-ca"
  | "leaf-may-sign"
  | "leaf-key-usage"
  | "leaf-purpose"
  | "signer-has-path"
  | "unknown-trust-domain";

export interface VerifiedX509Svid {
  readonly ok: true;
  readonly id: SpiffeId;
  readonly trustDomain: TrustDomain;
  readonly leaf: Certificate;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  /** The earliest end of the whole path: from then on it proves nothing. */
  readonly notAfterMs: number;
}

export interface RefusedX509Svid {
  readonly ok: false;
  readonly reason: X509SvidFault;
  /** For operators; lower case. Never sent to the peer. */
  readonly message: string;
  /** What the leaf claims to be, where it says so; proven of nothing. */
  readonly claimed: string | null;
}

/** What verification needs of a bundle. */
export interface X509Authorities {
  /** DER, one certificate each. Not to be changed in place: parsed authorities are remembered. */
  readonly x509Authorities: readonly Uint8Array[];
}

export type X509BundleOf = (trustDomain: TrustDomain) => X509Authorities | undefined;

const MAX_CHAIN = 10;

/**
 * Verifies a peer's chain (DER, leaf first, any order after it) at `now` (ms).
 * INVARIANT: identity comes from exactly one URI SAN of a chain that leads to the bundle of that identity's own trust domain.
 * Never throws. SPEC: X509-SVID §2, §4, §5.
 */
export function verifyX509Svid(
  chainDer: readonly Uint8Array[],
  bundleOf: X509BundleOf,
  now: number,
): VerifiedX509Svid | RefusedX509Svid {
  if (chainDer.length === 0) {
    return refuse("no-certificate", "the peer sent no certificate", null);
  }
  if (chainDer.length > MAX_CHAIN) {
    return refuse("chain-too-long", `a chain of ${chainDer.length} certificates`, null);
  }
  let chain: Certificate[];
  try {
    chain = chainDer.map(parseCertificate);
  } catch (error) {
    return refuse("malformed", error instanceof Error ? error.message : String(error), null);
  }
  const leaf = chain[0] as Certificate;
  const identity = identityOf(leaf);
  if (!identity.ok) {
    return identity;
  }
  const { id } = identity;
  const trustDomain = trustDomainOf(id);
  const bundle = bundleOf(trustDomain);
  if (bundle === undefined) {
    return refuse("unknown-trust-domain", `no bundle for the trust domain \`${trustDomain}\``, id);
  }
  const result = validatePath(chain, bundle.x509Authorities, now);
  if (!result.ok) {
    return refuse(result.reason, result.message, id);
  }
  // SPEC: X509-SVID §3.2. An anchor is as the bundle's owner made it.
  if (result.path.slice(1, -1).some(({ names }) => names?.uris.some(isWorkloadsId) === true)) {
    return refuse("signer-has-path", "an intermediate's SPIFFE ID has a path: it is a workload's, not a signer's", id);
  }
  const { serial, notBeforeMs } = leaf;
  return { ok: true, id, trustDomain, leaf, serial, notBeforeMs, notAfterMs: result.notAfterMs };
}

const isWorkloadsId = (uri: string): boolean => /^spiffe:\/\/[^/]*\/./i.test(uri);

function refuse(reason: X509SvidFault, message: string, claimed: string | null): RefusedX509Svid {
  return { ok: false, reason, message, claimed };
}

/** The identity a leaf claims, after SPIFFE's own rules for a leaf; the chain is not looked at. SPEC: X509-SVID §5.2. */
export function identityOf(leaf: Certificate): { readonly ok: true; readonly id: SpiffeId } | RefusedX509Svid {
  const uris = leaf.names?.uris ?? [];
  const [uri] = uris;
  if (uri === undefined) {
    return refuse("no-spiffe-id", "the certificate has no URI name", null);
  }
  if (uris.length > 1) {
    return refuse("several-uri-names", `the certificate has ${uris.length} URI names`, null);
  }
  const fault = spiffeIdFault(uri);
  if (fault !== null) {
    return refuse("no-spiffe-id", `the URI name is not a SPIFFE ID: ${fault}`, null);
  }
  const id = uri as SpiffeId;
  return leafProfileFault(leaf, id) ?? { ok: true, id };
}

function leafProfileFault(leaf: Certificate, id: SpiffeId): RefusedX509Svid | null {
  if (pathOf(id) === "") {
    return refuse("root-path", "a trust domain's own ID authenticates no workload", id);
  }
  if (leaf.basicConstraints?.ca === true) {
    return refuse("leaf-is-ca", "a CA certificate authenticates no workload", id);
  }
  const usages = leaf.keyUsage ?? [];
  if (usages.includes("keyCertSign") || usages.includes("cRLSign")) {
    return refuse("leaf-may-sign", "a leaf carries keyCertSign or cRLSign", id);
  }
  if (!usages.includes("digitalSignature")) {
    return refuse("leaf-key-usage", "a leaf does not carry digitalSignature", id);
  }
  const purposes = leaf.extendedKeyUsage;
  const both = purposes?.includes(EKU.serverAuth) === true && purposes.includes(EKU.clientAuth);
  return purposes === null || both || purposes.includes(EKU.any)
    ? null
    : refuse("leaf-purpose", "a leaf with extendedKeyUsage must carry serverAuth and clientAuth", id);
}

/** `X509Bundles` in the form that `verifyX509Svid` takes. */
export function bundlesOf(bundles: X509Bundles): X509BundleOf {
  return (trustDomain) => {
    const x509Authorities = bundles.get(trustDomain);
    return x509Authorities === undefined ? undefined : { x509Authorities };
  };
}
