/** Intents in octets. HOT: per issuance. */
import type { CaIntent, Intent, LeafIntent, RequestIntent, TokenIntent } from "./intent.ts";
import { malformed, type OctetReader, type OctetWriter } from "./octets.ts";
import { copy, flag, MAX_DER, oneOf, readId, writeId } from "./wire.ts";

const KINDS = ["x509-svid", "x509-ca", "x509-csr", "jwt-svid"] as const satisfies readonly Intent["kind"][];
/** SPEC: SPIFFE-ID §2.3. */
const MAX_SPIFFE_ID = 2_048;
const MAX_DNS_NAME = 253;
const MAX_DNS_NAMES = 500;
const MAX_AUDIENCE = 2_048;
const MAX_AUDIENCES = 64;
const SERIAL_BYTES = 16;

export function writeIntent(to: OctetWriter, intent: Intent): void {
  to.u8(KINDS.indexOf(intent.kind));
  writeId(writeId(to, intent.authorityId), intent.serial);
  switch (intent.kind) {
    case "x509-svid":
      to.bytes(intent.spki).text(intent.spiffeId);
      to.list(intent.dnsNames, (name) => to.text(name));
      break;
    case "x509-ca":
      to.bytes(intent.spki);
      break;
    case "x509-csr":
      return;
    case "jwt-svid":
      to.text(intent.spiffeId).list(intent.audiences, (audience) => to.text(audience));
      // An issuer may be empty, which is not the same as none.
      to.u8(intent.issuer === null ? 0 : 1).text(intent.issuer ?? "");
      to.u8(intent.includeJwtId ? 1 : 0);
  }
  to.integer(intent.notBeforeMs).integer(intent.notAfterMs);
}

export function readIntent(from: OctetReader): Intent {
  const kind = oneOf(KINDS, from.u8());
  const authorityId = readId(from);
  const serial = readId(from);
  if (serial.length !== 2 * SERIAL_BYTES) {
    throw malformed("a serial number that has not 16 octets");
  }
  switch (kind) {
    case "x509-svid":
      return readLeaf(from, authorityId, serial);
    case "x509-ca":
      return { kind, authorityId, serial, spki: copy(from.bytes(MAX_DER)), ...readTimes(from) } satisfies CaIntent;
    case "x509-csr":
      return { kind, authorityId, serial } satisfies RequestIntent;
    case "jwt-svid":
      return readToken(from, authorityId, serial);
  }
}

function readTimes(from: OctetReader): { notBeforeMs: number; notAfterMs: number } {
  return { notBeforeMs: from.integer(), notAfterMs: from.integer() };
}

function readLeaf(from: OctetReader, authorityId: string, serial: string): LeafIntent {
  return {
    kind: "x509-svid",
    authorityId,
    serial,
    spki: copy(from.bytes(MAX_DER)),
    spiffeId: from.text(MAX_SPIFFE_ID),
    dnsNames: from.list(MAX_DNS_NAMES, () => from.text(MAX_DNS_NAME)),
    ...readTimes(from),
  };
}

function readToken(from: OctetReader, authorityId: string, serial: string): TokenIntent {
  const spiffeId = from.text(MAX_SPIFFE_ID);
  const audiences = from.list(MAX_AUDIENCES, () => from.text(MAX_AUDIENCE));
  const named = flag(from);
  const issuer = from.text(MAX_SPIFFE_ID);
  return {
    kind: "jwt-svid",
    authorityId,
    serial,
    spiffeId,
    audiences,
    issuer: named ? issuer : null,
    includeJwtId: flag(from),
    ...readTimes(from),
  };
}
