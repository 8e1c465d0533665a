import { EveryhopError } from "../base/errors.ts";
import {
  keyFault,
  type PublicKeyInfo,
  parsePublicKeyInfo,
  publicKeyFromSpki,
  type SignatureAlgorithm,
  signatureAlgorithmOf,
  verifySignature,
} from "./algorithm.ts";
import { DerReader, TAG } from "./der.ts";
import { type AlternativeNames, EXTENSION, parseAlternativeNames, parseExtensions } from "./extensions.ts";
import { type Name, parseName } from "./name.ts";

/** A certification request. Only its key is ever used for an SVID: names come from the registration entry. */
export interface CertificationRequest {
  readonly info: Uint8Array;
  readonly subject: Name;
  readonly spki: Uint8Array;
  readonly publicKey: PublicKeyInfo;
  /** What it asks for, where it does. */
  readonly names: AlternativeNames | null;
  readonly algorithm: SignatureAlgorithm | null;
  readonly signature: Uint8Array;
}

const MAX_CSR_BYTES = 16_384;
const EXTENSION_REQUEST = "1.2.840.113549.1.9.14";

/** Parses a request; nothing is verified. Errors: `invalid-argument`. SPEC: RFC 2986 §4. */
export function parseCsr(der: Uint8Array): CertificationRequest {
  if (der.length > MAX_CSR_BYTES) {
    throw new EveryhopError("invalid-argument", `a certification request of ${der.length} bytes is too large`);
  }
  const outer = new DerReader(der);
  const request = outer.enter(TAG.sequence);
  outer.done();
  const info = request.element(TAG.sequence);
  const algorithm = signatureAlgorithmOf(request.element(TAG.sequence));
  const signature = request.octetAlignedBits();
  request.done();
  const reader = new DerReader(info).enter(TAG.sequence);
  if (reader.smallInteger() !== 0) {
    throw new EveryhopError("invalid-argument", "a certification request of an unknown version");
  }
  const subject = parseName(reader.element(TAG.sequence));
  const spki = reader.element(TAG.sequence);
  const names = reader.peek() === -1 ? null : requestedNames(reader.enter(0xa0));
  reader.done();
  return { info, subject, spki, publicKey: parsePublicKeyInfo(spki), names, algorithm, signature };
}

function requestedNames(attributes: DerReader): AlternativeNames | null {
  let names: AlternativeNames | null = null;
  while (attributes.peek() !== -1) {
    const attribute = attributes.enter(TAG.sequence);
    if (attribute.oid() === EXTENSION_REQUEST) {
      const values = attribute.enter(TAG.set);
      const extensions = parseExtensions(values.enter(TAG.sequence));
      values.done();
      const san = extensions.find(({ oid }) => oid === EXTENSION.subjectAltName);
      names = san === undefined ? names : parseAlternativeNames(san.value);
    } else {
      attribute.element(TAG.set);
    }
    attribute.done();
  }
  return names;
}

/**
 * Parses a request, checks that its key is strong enough and that the asker holds it (the self-signature).
 * Errors: `invalid-argument` with the reason.
 */
export function verifyCsr(der: Uint8Array): CertificationRequest {
  const request = parseCsr(der);
  const fault = keyFault(request.publicKey.key);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `the key of a certification request is refused: ${fault}`);
  }
  const key = publicKeyFromSpki(request.spki);
  if (request.algorithm === null || !verifySignature(request.algorithm, key, request.info, request.signature)) {
    throw new EveryhopError("invalid-argument", "the signature of a certification request does not verify");
  }
  return request;
}
