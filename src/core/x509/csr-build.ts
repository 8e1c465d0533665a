import { algorithmIdentifier, type SignatureAlgorithm } from "./algorithm.ts";
import { TAG } from "./der.ts";
import { bitString, oidElement, sequence, tlv } from "./der-write.ts";
import { EXTENSION } from "./extensions.ts";

export interface CsrTemplate {
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array;
  readonly algorithm: SignatureAlgorithm;
  /** What it asks for, where the names do not come from a registration entry. */
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
}

const VERSION_1 = tlv(TAG.integer, Uint8Array.of(0));
const EXTENSION_REQUEST = oidElement("1.2.840.113549.1.9.14");

/** A certification request; `sign` gives the signature in the algorithm's own encoding (ECDSA: DER). SPEC: RFC 2986 §4. */
export function buildCsr(template: CsrTemplate, sign: (info: Uint8Array) => Uint8Array): Uint8Array {
  const info = buildCsrInfo(template);
  return sequence(info, algorithmIdentifier(template.algorithm), bitString(sign(info)));
}

/** The bytes to sign for it. */
export function buildCsrInfo({ spki, uris = [], dnsNames = [] }: CsrTemplate): Uint8Array {
  const names = [
    ...uris.map((uri) => tlv(0x86, Buffer.from(uri, "latin1"))),
    ...dnsNames.map((name) => tlv(0x82, Buffer.from(name, "latin1"))),
  ];
  return sequence(VERSION_1, sequence(), spki, tlv(0xa0, ...(names.length === 0 ? [] : [askFor(names)])));
}

function askFor(names: readonly Uint8Array[]): Uint8Array {
  const extension = sequence(oidElement(EXTENSION.subjectAltName), tlv(TAG.octetString, sequence(...names)));
  return sequence(EXTENSION_REQUEST, tlv(TAG.set, sequence(extension)));
}
