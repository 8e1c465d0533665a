import { hash } from "node:crypto";
import { algorithmIdentifier, type PublicKeyInfo, parsePublicKeyInfo, type SignatureAlgorithm } from "./algorithm.ts";
import { TAG } from "./der.ts";
import { bitString, namedBitString, oidElement, sequence, timeElement, tlv, unsignedInteger } from "./der-write.ts";
import { EKU, EXTENSION, KEY_USAGES, type KeyUsage } from "./extensions.ts";

/** What every certificate needs. Names are DER (`encodeName`), key identifiers are raw octets. */
interface TbsTemplate {
  /** 1 to 20 big-endian octets, not all zero, random. */
  readonly serial: Uint8Array;
  readonly algorithm: SignatureAlgorithm;
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly spki: Uint8Array;
  /** `keyIdentifier` of it, where that is known already. */
  readonly subjectKeyId?: Uint8Array;
  readonly authorityKeyId: Uint8Array;
}

export interface LeafTemplate extends TbsTemplate {
  /** The one URI name. */
  readonly spiffeId: string;
  readonly dnsNames: readonly string[];
}

export interface CaTemplate extends TbsTemplate {
  /** `spiffe://<trust domain>`. */
  readonly spiffeId: string;
  /** How many CAs may follow below; null is unlimited. */
  readonly pathLength: number | null;
}

const TRUE = tlv(TAG.boolean, Uint8Array.of(0xff));
const VERSION_3 = tlv(0xa0, tlv(TAG.integer, Uint8Array.of(2)));

function extension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  const octets = tlv(TAG.octetString, value);
  return critical ? sequence(oidElement(oid), TRUE, octets) : sequence(oidElement(oid), octets);
}

const keyUsageExtension = (...usages: readonly KeyUsage[]): Uint8Array =>
  extension(EXTENSION.keyUsage, true, namedBitString(usages.map((usage) => KEY_USAGES.indexOf(usage))));

/** SPEC: X509-SVID §4.3, §4.4. The same for every leaf, so encoded once. */
const LEAF_EXTENSIONS = Buffer.concat([
  keyUsageExtension("digitalSignature", "keyEncipherment", "keyAgreement"),
  extension(EXTENSION.extendedKeyUsage, false, sequence(oidElement(EKU.serverAuth), oidElement(EKU.clientAuth))),
  extension(EXTENSION.basicConstraints, true, sequence()),
]);
const CA_KEY_USAGE = keyUsageExtension("keyCertSign", "cRLSign");

const SKI_OID = oidElement(EXTENSION.subjectKeyId);
const AKI_OID = oidElement(EXTENSION.authorityKeyId);
const SAN_OID = oidElement(EXTENSION.subjectAltName);

/** The key identifier of a public key. SPEC: RFC 5280 §4.2.1.2 (1): SHA-1 as a name, not as a proof. */
export function keyIdentifier(spki: Uint8Array): Uint8Array {
  return keyIdentifierOf(parsePublicKeyInfo(spki));
}

export function keyIdentifierOf({ bits }: PublicKeyInfo): Uint8Array {
  return hash("sha1", bits, "buffer");
}

function alternativeNames(uri: string, dnsNames: readonly string[], critical: boolean): Uint8Array {
  const names = [
    tlv(0x86, Buffer.from(uri, "latin1")),
    ...dnsNames.map((name) => tlv(0x82, Buffer.from(name, "latin1"))),
  ];
  const value = tlv(TAG.octetString, sequence(...names));
  return critical ? sequence(SAN_OID, TRUE, value) : sequence(SAN_OID, value);
}

function tbsCertificate(template: TbsTemplate, extensions: readonly Uint8Array[]): Uint8Array {
  return sequence(
    VERSION_3,
    unsignedInteger(template.serial),
    algorithmIdentifier(template.algorithm),
    template.issuer,
    sequence(timeElement(template.notBeforeMs), timeElement(template.notAfterMs)),
    template.subject,
    template.spki,
    tlv(0xa3, sequence(...extensions)),
  );
}

function keyIdExtensions(template: TbsTemplate): Uint8Array[] {
  return [
    sequence(
      SKI_OID,
      tlv(TAG.octetString, tlv(TAG.octetString, template.subjectKeyId ?? keyIdentifier(template.spki))),
    ),
    sequence(AKI_OID, tlv(TAG.octetString, sequence(tlv(0x80, template.authorityKeyId)))),
  ];
}

/** The bytes to sign for an X.509-SVID. HOT: per issuance. SPEC: X509-SVID §4. */
export function buildLeafTbs(template: LeafTemplate): Uint8Array {
  // An empty subject makes the alternative names critical. SPEC: RFC 5280 §4.2.1.6.
  const subjectIsEmpty = template.subject.length === 2;
  return tbsCertificate(template, [
    LEAF_EXTENSIONS,
    ...keyIdExtensions(template),
    alternativeNames(template.spiffeId, template.dnsNames, subjectIsEmpty),
  ]);
}

/** The bytes to sign for a SPIFFE signing certificate. SPEC: X509-SVID §4. */
export function buildCaTbs(template: CaTemplate): Uint8Array {
  const pathLength = template.pathLength === null ? [] : [unsignedInteger(Uint8Array.of(template.pathLength))];
  return tbsCertificate(template, [
    CA_KEY_USAGE,
    extension(EXTENSION.basicConstraints, true, sequence(TRUE, ...pathLength)),
    ...keyIdExtensions(template),
    alternativeNames(template.spiffeId, [], false),
  ]);
}

/** Puts TBS and signature together; `sign` gives the signature in the algorithm's own encoding (ECDSA: DER). */
export function assembleCertificate(
  tbs: Uint8Array,
  algorithm: SignatureAlgorithm,
  sign: (tbs: Uint8Array) => Uint8Array,
): Uint8Array {
  return sequence(tbs, algorithmIdentifier(algorithm), bitString(sign(tbs)));
}
