import { asciiText, DerReader, derError, TAG } from "./der.ts";

/** Extensions that this code understands. SPEC: RFC 5280 §4.2.1. */
export const EXTENSION = {
  subjectKeyId: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  nameConstraints: "2.5.29.30",
  authorityKeyId: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
} as const;

export interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  /** The DER inside the extension's octet string. */
  readonly value: Uint8Array;
}

/** Bits of keyUsage by their number. SPEC: RFC 5280 §4.2.1.3. */
export const KEY_USAGES = [
  "digitalSignature",
  "contentCommitment",
  "keyEncipherment",
  "dataEncipherment",
  "keyAgreement",
  "keyCertSign",
  "cRLSign",
  "encipherOnly",
  "decipherOnly",
] as const;
export type KeyUsage = (typeof KEY_USAGES)[number];

export const EKU = {
  any: "2.5.29.37.0",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
} as const;

/** The subject's alternative names, by kind; kinds that nothing here uses are only counted. */
export interface AlternativeNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly emails: readonly string[];
  /** 4 or 16 octets each. */
  readonly ipAddresses: readonly Uint8Array[];
  readonly others: number;
}

export interface BasicConstraints {
  readonly ca: boolean;
  readonly pathLength: number | null;
}

/** One side of a nameConstraints extension. */
export interface NameSubtrees {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** Kinds constrained that are not evaluated here: a name of such a kind is refused. */
  readonly otherTags: readonly number[];
}

export interface NameConstraints {
  readonly permitted: NameSubtrees | null;
  readonly excluded: NameSubtrees | null;
}

const MAX_EXTENSIONS = 64;
const MAX_NAMES = 512;

const URI = 0x86;
const DNS = 0x82;
const EMAIL = 0x81;
const IP = 0x87;

/** Parses the list; an extension that comes twice is refused. SPEC: RFC 5280 §4.2. */
export function parseExtensions(list: DerReader): Extension[] {
  const extensions: Extension[] = [];
  const seen = new Set<string>();
  while (list.peek() !== -1) {
    const reader = list.enter(TAG.sequence);
    const oid = reader.oid();
    const critical = reader.peek() === TAG.boolean;
    if (critical && !reader.boolean()) {
      throw derError("a default value is encoded");
    }
    const value = reader.content(TAG.octetString);
    reader.done();
    if (seen.has(oid) || seen.size === MAX_EXTENSIONS) {
      throw derError(seen.has(oid) ? `extension ${oid} comes twice` : "too many extensions");
    }
    seen.add(oid);
    extensions.push({ oid, critical, value });
  }
  if (extensions.length === 0) {
    throw derError("an empty list of extensions");
  }
  return extensions;
}

function only<T>(value: Uint8Array, tag: number, read: (reader: DerReader) => T): T {
  const outer = new DerReader(value);
  const inner = outer.enter(tag);
  outer.done();
  const result = read(inner);
  inner.done();
  return result;
}

export function parseKeyUsage(value: Uint8Array): KeyUsage[] {
  const reader = new DerReader(value);
  const bits = reader.namedBits();
  reader.done();
  return bits.map((bit) => {
    const name = KEY_USAGES[bit];
    if (name === undefined) {
      throw derError("unknown key usage bit");
    }
    return name;
  });
}

export function parseExtendedKeyUsage(value: Uint8Array): string[] {
  return only(value, TAG.sequence, (reader) => {
    const purposes: string[] = [];
    do {
      purposes.push(reader.oid());
    } while (reader.peek() !== -1 && purposes.length < MAX_EXTENSIONS);
    return purposes;
  });
}

export function parseBasicConstraints(value: Uint8Array): BasicConstraints {
  return only(value, TAG.sequence, (reader) => {
    const ca = reader.peek() === TAG.boolean;
    if (ca && !reader.boolean()) {
      throw derError("a default value is encoded");
    }
    const pathLength = reader.peek() === TAG.integer ? reader.smallInteger() : null;
    if (pathLength !== null && !ca) {
      throw derError("a path length without a CA");
    }
    return { ca, pathLength };
  });
}

export function parseSubjectKeyId(value: Uint8Array): Uint8Array {
  const reader = new DerReader(value);
  const id = reader.content(TAG.octetString);
  reader.done();
  return id;
}

/** The key identifier alone; issuer and serial, where given, are not needed to find the issuer. */
export function parseAuthorityKeyId(value: Uint8Array): Uint8Array | null {
  return only(value, TAG.sequence, (reader) => {
    const id = reader.peek() === 0x80 ? reader.content(0x80) : null;
    for (const tag of [0xa1, 0x82]) {
      if (reader.peek() === tag) {
        reader.element();
      }
    }
    return id;
  });
}

/** SPEC: RFC 5280 §4.2.1.6. An empty list is refused. */
export function parseAlternativeNames(value: Uint8Array): AlternativeNames {
  const names = { uris: [] as string[], dnsNames: [] as string[], emails: [] as string[], others: 0 };
  const ipAddresses: Uint8Array[] = [];
  only(value, TAG.sequence, (reader) => {
    let count = 0;
    do {
      const tag = reader.peek();
      if (tag === URI) {
        names.uris.push(asciiText(reader.content(tag)));
      } else if (tag === DNS) {
        names.dnsNames.push(asciiText(reader.content(tag)));
      } else if (tag === EMAIL) {
        names.emails.push(asciiText(reader.content(tag)));
      } else if (tag === IP) {
        ipAddresses.push(reader.content(tag));
      } else if (tag >= 0x80 && tag <= 0xa8) {
        reader.element();
        names.others++;
      } else {
        throw derError("impossible alternative name");
      }
      count++;
    } while (reader.peek() !== -1 && count < MAX_NAMES);
  });
  if (ipAddresses.some((address) => address.length !== 4 && address.length !== 16)) {
    throw derError("impossible IP address");
  }
  return { ...names, ipAddresses };
}

/** SPEC: RFC 5280 §4.2.1.10. */
export function parseNameConstraints(value: Uint8Array): NameConstraints {
  return only(value, TAG.sequence, (reader) => ({
    permitted: reader.peek() === 0xa0 ? parseSubtrees(reader.enter(0xa0)) : null,
    excluded: reader.peek() === 0xa1 ? parseSubtrees(reader.enter(0xa1)) : null,
  }));
}

function parseSubtrees(list: DerReader): NameSubtrees {
  const uris: string[] = [];
  const dnsNames: string[] = [];
  const otherTags: number[] = [];
  do {
    const subtree = list.enter(TAG.sequence);
    const tag = subtree.peek();
    if (tag === URI) {
      uris.push(asciiText(subtree.content(tag)));
    } else if (tag === DNS) {
      dnsNames.push(asciiText(subtree.content(tag)));
    } else {
      subtree.element();
      otherTags.push(tag);
    }
    // Minimum and maximum are not used with any name form. SPEC: RFC 5280 §4.2.1.10.
    subtree.done();
  } while (list.peek() !== -1 && uris.length + dnsNames.length + otherTags.length < MAX_NAMES);
  list.done();
  return { uris, dnsNames, otherTags };
}
