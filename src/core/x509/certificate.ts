import { EveryhopError } from "../base/errors.ts";
import { type PublicKeyInfo, parsePublicKeyInfo, type SignatureAlgorithm, signatureAlgorithmOf } from "./algorithm.ts";
import { DerReader, derError, TAG } from "./der.ts";
import {
  type AlternativeNames,
  type BasicConstraints,
  EXTENSION,
  type Extension,
  type KeyUsage,
  type NameConstraints,
  parseAlternativeNames,
  parseAuthorityKeyId,
  parseBasicConstraints,
  parseExtendedKeyUsage,
  parseExtensions,
  parseKeyUsage,
  parseNameConstraints,
  parseSubjectKeyId,
} from "./extensions.ts";
import { type Name, parseName } from "./name.ts";

/** What a certificate says, before any of it is believed. Byte arrays are views on the input: do not change it. */
export interface TbsCertificate {
  /** The signed bytes. */
  readonly tbs: Uint8Array;
  /** Lower-case hex of whole octets, without a sign octet. */
  readonly serial: string;
  /** The AlgorithmIdentifier as it stands; null in `algorithm` where it is none we know. */
  readonly algorithmDer: Uint8Array;
  readonly algorithm: SignatureAlgorithm | null;
  readonly issuer: Name;
  readonly subject: Name;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** The SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  readonly publicKey: PublicKeyInfo;
  readonly extensions: readonly Extension[];
  /** Null where the certificate carries no such extension. */
  readonly names: AlternativeNames | null;
  readonly keyUsage: readonly KeyUsage[] | null;
  readonly basicConstraints: BasicConstraints | null;
  readonly extendedKeyUsage: readonly string[] | null;
  readonly nameConstraints: NameConstraints | null;
  /** Lower-case hex. */
  readonly subjectKeyId: string | null;
  readonly authorityKeyId: string | null;
}

export interface Certificate extends TbsCertificate {
  readonly der: Uint8Array;
  readonly signature: Uint8Array;
}

/** An X.509-SVID has 0.5 to 2 kB; nothing honest comes near this. */
const MAX_CERTIFICATE_BYTES = 65_536;
/** SPEC: RFC 5280 §4.1.2.2. */
const MAX_SERIAL_OCTETS = 20;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");

/** Parses a v3 certificate. Nothing is verified. Errors: `invalid-argument`. SPEC: RFC 5280 §4.1. */
export function parseCertificate(der: Uint8Array): Certificate {
  if (der.length > MAX_CERTIFICATE_BYTES) {
    throw new EveryhopError("invalid-argument", `a certificate of ${der.length} bytes is too large`);
  }
  const outer = new DerReader(der);
  const certificate = outer.enter(TAG.sequence);
  outer.done();
  const tbsDer = certificate.element(TAG.sequence);
  const algorithmDer = certificate.element(TAG.sequence);
  const signature = certificate.octetAlignedBits();
  certificate.done();
  const tbs = parseTbsCertificate(tbsDer);
  if (hex(algorithmDer) !== hex(tbs.algorithmDer)) {
    throw derError("the signature algorithm inside and outside differ");
  }
  return { ...tbs, der, signature };
}

/** Parses the part that is signed. SPEC: RFC 5280 §4.1.1.1, §4.1.2. */
export function parseTbsCertificate(tbs: Uint8Array): TbsCertificate {
  const outer = new DerReader(tbs);
  const reader = outer.enter(TAG.sequence);
  outer.done();
  readVersion3(reader);
  const serial = parseSerial(reader.integer());
  const algorithmDer = reader.element(TAG.sequence);
  const issuer = parseName(reader.element(TAG.sequence));
  const validity = reader.enter(TAG.sequence);
  const notBeforeMs = validity.time();
  const notAfterMs = validity.time();
  validity.done();
  const subject = parseName(reader.element(TAG.sequence));
  const spki = reader.element(TAG.sequence);
  const extensions = readExtensions(reader);
  return {
    tbs,
    serial,
    algorithmDer,
    algorithm: signatureAlgorithmOf(algorithmDer),
    issuer,
    subject,
    notBeforeMs,
    notAfterMs,
    spki,
    publicKey: parsePublicKeyInfo(spki),
    extensions,
    ...knownExtensions(extensions),
  };
}

function readVersion3(reader: DerReader): void {
  if (reader.peek() !== 0xa0) {
    throw derError("not a version 3 certificate");
  }
  const version = reader.enter(0xa0);
  if (version.smallInteger() !== 2) {
    throw derError("not a version 3 certificate");
  }
  version.done();
}

function parseSerial(content: Uint8Array): string {
  const octets = content.length > 1 && content[0] === 0 ? content.subarray(1) : content;
  if ((content[0] as number) >= 0x80 || octets.length > MAX_SERIAL_OCTETS) {
    throw derError("a serial number is negative or too long");
  }
  return hex(octets);
}

function readExtensions(reader: DerReader): Extension[] {
  for (const uniqueId of [0x81, 0x82]) {
    if (reader.peek() === uniqueId) {
      reader.element();
    }
  }
  if (reader.peek() === -1) {
    return [];
  }
  const wrapper = reader.enter(0xa3);
  reader.done();
  const list = wrapper.enter(TAG.sequence);
  wrapper.done();
  return parseExtensions(list);
}

type KnownExtensions = Pick<
  TbsCertificate,
  "names" | "keyUsage" | "basicConstraints" | "extendedKeyUsage" | "nameConstraints" | "subjectKeyId" | "authorityKeyId"
>;

function knownExtensions(extensions: readonly Extension[]): KnownExtensions {
  const read = <T>(oid: string, parse: (value: Uint8Array) => T): T | null => {
    const extension = extensions.find((candidate) => candidate.oid === oid);
    return extension === undefined ? null : parse(extension.value);
  };
  return {
    names: read(EXTENSION.subjectAltName, parseAlternativeNames),
    keyUsage: read(EXTENSION.keyUsage, parseKeyUsage),
    basicConstraints: read(EXTENSION.basicConstraints, parseBasicConstraints),
    extendedKeyUsage: read(EXTENSION.extendedKeyUsage, parseExtendedKeyUsage),
    nameConstraints: read(EXTENSION.nameConstraints, parseNameConstraints),
    subjectKeyId: read(EXTENSION.subjectKeyId, (value) => hex(parseSubjectKeyId(value))),
    authorityKeyId: read(EXTENSION.authorityKeyId, (value) => {
      const id = parseAuthorityKeyId(value);
      return id === null ? null : hex(id);
    }),
  };
}

const KNOWN: ReadonlySet<string> = new Set(Object.values(EXTENSION));

/** Critical extensions that this code does not understand: a certificate with one is refused. SPEC: RFC 5280 §4.2. */
export function unknownCritical(certificate: TbsCertificate): readonly string[] {
  return certificate.extensions.filter(({ oid, critical }) => critical && !KNOWN.has(oid)).map(({ oid }) => oid);
}

export function isCritical(certificate: TbsCertificate, oid: string): boolean {
  return certificate.extensions.some((extension) => extension.oid === oid && extension.critical);
}
