// Certificates that nobody should believe, written by hand: just enough X.509 for a SPIFFE identity.
import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";

const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));

function der(tag, ...parts) {
  const body = bytes(...parts);
  const length =
    body.length < 128
      ? [body.length]
      : body.length < 256
        ? [0x81, body.length]
        : [0x82, body.length >> 8, body.length & 255];
  return bytes([tag], length, body);
}

const sequence = (...parts) => der(0x30, ...parts);
const oid = (hex) => der(0x06, Buffer.from(hex, "hex"));
const ECDSA_SHA256 = sequence(oid("2a8648ce3d040302"));
const extension = (id, critical, value) =>
  sequence(oid(id), ...(critical ? [der(0x01, [0xff])] : []), der(0x04, value));
const time = (date) => der(0x17, `${date.toISOString().replace(/[-:T]/g, "").slice(2, 14)}Z`);
const name = (text) => sequence(der(0x31, sequence(oid("550403"), der(0x0c, text))));

export function makeKey() {
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

/**
 * A certificate for `key`, PEM. `uri` becomes its SPIFFE ID, `ca` makes it an authority; `issuer` (its `key` and `subject`)
 * signs, or it signs itself.
 */
export function forge({
  key,
  uri = null,
  ca = false,
  subject,
  issuer = { key, subject },
  fromMs = -60_000,
  toMs = 3_600_000,
}) {
  const extensions = [
    extension("551d13", true, sequence(...(ca ? [der(0x01, [0xff])] : []))),
    extension("551d0f", true, ca ? der(0x03, [1, 0x06]) : der(0x03, [7, 0x80])),
    extension("551d0e", false, der(0x04, createHash("sha1").update(spki(key)).digest())),
  ];
  if (uri !== null) {
    extensions.push(extension("551d11", false, sequence(der(0x86, uri))));
    extensions.push(extension("551d25", false, sequence(oid("2b06010505070301"), oid("2b06010505070302"))));
  }
  const now = Date.now();
  const content = sequence(
    der(0xa0, der(0x02, [2])),
    der(0x02, [1], randomBytes(15)),
    ECDSA_SHA256,
    name(issuer.subject),
    sequence(time(new Date(now + fromMs)), time(new Date(now + toMs))),
    name(subject),
    spki(key),
    der(0xa3, sequence(...extensions)),
  );
  const signature = sign("sha256", content, issuer.key.privateKey);
  return pem(sequence(content, ECDSA_SHA256, der(0x03, [0], signature)));
}

const spki = (key) => key.publicKey.export({ type: "spki", format: "der" });
export const keyPem = (key) => key.privateKey.export({ type: "pkcs8", format: "pem" });

export function pem(certificate, label = "CERTIFICATE") {
  const lines =
    Buffer.from(certificate)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
