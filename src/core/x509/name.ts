import { memo } from "../base/memo.ts";
import { asciiText, DerReader, derError, TAG } from "./der.ts";
import { oidElement, sequence, tlv } from "./der-write.ts";

/** Attributes that have a short name. SPEC: RFC 4519, RFC 5280 Appendix A. */
const SHORT: Readonly<Record<string, string>> = {
  C: "2.5.4.6",
  O: "2.5.4.10",
  OU: "2.5.4.11",
  CN: "2.5.4.3",
  L: "2.5.4.7",
  ST: "2.5.4.8",
  serialNumber: "2.5.4.5",
};
const LONG = new Map(Object.entries(SHORT).map(([name, oid]) => [oid, name]));

/** One attribute of a distinguished name; `type` is a short name or an OID. */
export interface NameAttribute {
  readonly type: string;
  readonly value: string;
}

/** A distinguished name. Two names are the same where their DER is. */
export interface Name {
  readonly der: Uint8Array;
  readonly attributes: readonly NameAttribute[];
}

const MAX_ATTRIBUTES = 32;

/** Parses a Name. Text of other types than UTF-8, printable and IA5 is kept as hex. */
export function parseName(der: Uint8Array): Name {
  return namesRead(Buffer.from(der.buffer, der.byteOffset, der.length).toString("latin1"));
}

const namesRead = memo(64, (text) => readName(Buffer.from(text, "latin1")));

function readName(der: Uint8Array): Name {
  const outer = new DerReader(der);
  const rdns = outer.enter(TAG.sequence);
  outer.done();
  const attributes: NameAttribute[] = [];
  while (rdns.peek() !== -1) {
    const rdn = rdns.enter(TAG.set);
    do {
      const attribute = rdn.enter(TAG.sequence);
      const oid = attribute.oid();
      attributes.push({ type: LONG.get(oid) ?? oid, value: attributeText(attribute) });
      attribute.done();
      if (attributes.length > MAX_ATTRIBUTES) {
        throw derError("a name has too many attributes");
      }
    } while (rdn.peek() !== -1);
  }
  return { der, attributes };
}

function attributeText(reader: DerReader): string {
  switch (reader.peek()) {
    case TAG.utf8String:
      return new TextDecoder("utf-8", { fatal: false }).decode(reader.content(TAG.utf8String));
    case TAG.printableString:
      return asciiText(reader.content(TAG.printableString));
    case TAG.ia5String:
      return asciiText(reader.content(TAG.ia5String));
    default:
      return `#${Buffer.from(reader.element()).toString("hex")}`;
  }
}

/** The DER of a name with one attribute per RDN, in the order given. */
export function encodeName(attributes: readonly NameAttribute[]): Uint8Array {
  return sequence(
    ...attributes.map(({ type, value }) => {
      const printable = /^[A-Za-z0-9 '()+,./:=?-]*$/.test(value);
      const text = tlv(printable ? TAG.printableString : TAG.utf8String, Buffer.from(value, "utf8"));
      return tlv(TAG.set, sequence(oidElement(SHORT[type] ?? type), text));
    }),
  );
}

/** `C=US,O=everyhop`, in the order of the certificate. */
export function formatName(name: Name): string {
  return name.attributes.map(({ type, value }) => `${type}=${value.replace(/[,+"\\<>;=\p{Cc}]/gu, "\\$&")}`).join(",");
}
