import { keyFault, type PublicKeyInfo, type SignatureAlgorithm } from "./algorithm.ts";
import { isCritical, parseTbsCertificate, type TbsCertificate, unknownCritical } from "./certificate.ts";
import { dnsNameFault } from "./dns-name.ts";
import { EKU, EXTENSION, type KeyUsage } from "./extensions.ts";

/** What the signer was asked for; the TBS must say this and no more. */
export interface LintExpectation {
  readonly kind: "leaf" | "ca";
  /** The one of the key that signs. */
  readonly algorithm: SignatureAlgorithm;
  /** Lower-case hex of its octets. */
  readonly serial: string;
  readonly spiffeId: string;
  readonly dnsNames: readonly string[];
  readonly spki: Uint8Array;
  /** DER of the issuer's name and its key identifier in lower-case hex. */
  readonly issuer: Uint8Array;
  readonly issuerKeyId: string;
  readonly nowMs: number;
  /** The issuer's own end; nothing it signs outlives it. */
  readonly issuerNotAfterMs: number;
  readonly maxLifetimeMs: number;
}

/** NotBefore is set back against clocks that go slow; this much and no more. */
const MAX_BACKDATE_MS = 60_000;

/**
 * Reads a TBS certificate again, with the parser that verifiers use, and lists all that is wrong with it; empty where it may
 * be signed. INVARIANT: nothing is signed that was not linted. What is listed is what SPIRE's credvalidator checks after
 * signing, and RFC 5280's rules that `openssl verify -x509_strict` checks.
 */
export function lintTbs(tbs: Uint8Array, expected: LintExpectation): readonly string[] {
  let parsed: TbsCertificate;
  try {
    parsed = parseTbsCertificate(tbs);
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
  const faults: string[] = [];
  const must = (holds: boolean, fault: string): void => {
    if (!holds) {
      faults.push(fault);
    }
  };
  lintSerialAndTime(parsed, expected, must);
  lintNames(parsed, expected, must);
  lintKeys(parsed, parsed.publicKey, expected, must);
  lintUsage(parsed, expected.kind, must);
  must(unknownCritical(parsed).length === 0, "an unknown critical extension");
  return faults;
}

type Must = (holds: boolean, fault: string) => void;

function lintSerialAndTime(parsed: TbsCertificate, expected: LintExpectation, must: Must): void {
  must(/[^0]/.test(parsed.serial), "serial number is zero");
  must(parsed.serial === expected.serial, "serial number is not the one asked for");
  must(parsed.serial.length >= 16, "serial number has less than 64 bits");
  must(parsed.notBeforeMs < parsed.notAfterMs, "notBefore is not before notAfter");
  must(parsed.notBeforeMs <= expected.nowMs, "not yet valid");
  must(parsed.notBeforeMs >= expected.nowMs - MAX_BACKDATE_MS, "notBefore is too far in the past");
  must(parsed.notAfterMs > expected.nowMs - 1_000, "already expired");
  must(parsed.notAfterMs <= expected.issuerNotAfterMs, "outlives its issuer");
  must(parsed.notAfterMs - expected.nowMs <= expected.maxLifetimeMs, "lives too long");
}

function lintNames(parsed: TbsCertificate, expected: LintExpectation, must: Must): void {
  const { names } = parsed;
  must(names?.uris.length === 1, "URI names: exactly one is needed");
  must(names?.uris[0] === expected.spiffeId, "the URI name is not the SPIFFE ID asked for");
  const form = expected.kind === "leaf" ? /^spiffe:\/\/[^/]+\/./ : /^spiffe:\/\/[^/]+$/;
  must(form.test(names?.uris[0] ?? ""), "the URI name of a leaf needs a path, that of a CA has none (root path)");
  for (const name of names?.dnsNames ?? []) {
    must(dnsNameFault(name) === null, `the DNS name \`${name}\` ${dnsNameFault(name)}`);
  }
  must(sameList(names?.dnsNames ?? [], expected.dnsNames), "DNS names are not those asked for");
  const unasked = (names?.emails.length ?? 0) + (names?.ipAddresses.length ?? 0) + (names?.others ?? 0);
  must(unasked === 0, "names of a kind that nobody asked for");
  const emptySubject = parsed.subject.attributes.length === 0;
  must(!emptySubject || expected.kind === "leaf", "a CA needs a subject");
  must(!emptySubject || isCritical(parsed, EXTENSION.subjectAltName), "an empty subject needs critical names");
  must(sameBytes(parsed.issuer.der, expected.issuer), "issuer is not the signer");
}

function lintKeys(parsed: TbsCertificate, key: PublicKeyInfo, expected: LintExpectation, must: Must): void {
  const weak = keyFault(key.key);
  must(weak === null, weak ?? "");
  must(sameBytes(parsed.spki, expected.spki), "public key is not the one asked for");
  must(parsed.algorithm === expected.algorithm, "signature algorithm is not the signer's");
  must(parsed.subjectKeyId?.length === 40, "subjectKeyIdentifier is missing");
  must(parsed.authorityKeyId === expected.issuerKeyId, "authorityKeyIdentifier is not the signer's");
}

const LEAF_USAGES: readonly KeyUsage[] = ["digitalSignature", "keyEncipherment", "keyAgreement"];
const CA_USAGES: readonly KeyUsage[] = ["keyCertSign", "cRLSign", "digitalSignature"];

/** SPEC: X509-SVID §4.1, §4.3, §4.4. */
function lintUsage(parsed: TbsCertificate, kind: "leaf" | "ca", must: Must): void {
  const usages = parsed.keyUsage ?? [];
  must(isCritical(parsed, EXTENSION.keyUsage), "keyUsage is not critical");
  must(isCritical(parsed, EXTENSION.basicConstraints), "basicConstraints is not critical");
  if (kind === "ca") {
    must(parsed.basicConstraints?.ca === true, "cA must be set on a CA");
    must(usages.includes("keyCertSign"), "keyCertSign must be set on a CA");
    must(
      usages.every((usage) => CA_USAGES.includes(usage)),
      "a CA may only carry keyCertSign, cRLSign and digitalSignature",
    );
    must(parsed.extendedKeyUsage === null, "extendedKeyUsage has no place on a CA");
    return;
  }
  must(parsed.basicConstraints?.ca === false, "cA must not be set on a leaf");
  must(usages.includes("digitalSignature"), "digitalSignature must be set on a leaf");
  must(
    usages.every((usage) => LEAF_USAGES.includes(usage)),
    "a leaf may not carry keyCertSign, cRLSign or other usages",
  );
  const purposes = parsed.extendedKeyUsage ?? [];
  must(sameList(purposes, [EKU.serverAuth, EKU.clientAuth]), "extendedKeyUsage must be serverAuth and clientAuth");
}

function sameList(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((value, index) => value === right[index]);
}

function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && Buffer.compare(left, right) === 0;
}
