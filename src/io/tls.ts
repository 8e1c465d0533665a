/** TLS as everyhop uses it: 1.3 only, both sides with an X.509-SVID, no resumption, every chain checked by SPIFFE's rules. */
import { constants } from "node:crypto";
import {
  createSecureContext,
  type DetailedPeerCertificate,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
} from "node:tls";
import type { X509Svid } from "../core/spiffe/svid.ts";

/** A chain longer than this is refused before it is looked at. */
export const MAX_CHAIN = 10;

export function pem(label: "CERTIFICATE" | "PRIVATE KEY", der: Uint8Array): string {
  const body = Buffer.from(der.buffer, der.byteOffset, der.byteLength)
    .toString("base64")
    .replace(/.{64}/g, "$&\n")
    .trimEnd();
  return `-----BEGIN ${label}-----\n${body}\n-----END ${label}-----\n`;
}

export function pemChain(chain: readonly Uint8Array[]): string {
  return chain.map((der) => pem("CERTIFICATE", der)).join("");
}

/** Options that every TLS endpoint of ours has; with `svid` it presents that identity. */
export function contextOptions(svid: X509Svid | null): SecureContextOptions {
  return {
    minVersion: "TLSv1.3",
    // A resumed session would take the peer's word for what it proved an hour ago. Without tickets Node resumes nothing.
    secureOptions: constants.SSL_OP_NO_TICKET,
    ...(svid === null ? {} : { cert: pemChain(svid.chain), key: pem("PRIVATE KEY", svid.keyDer) }),
  };
}

export function secureContext(svid: X509Svid | null): SecureContext {
  return createSecureContext(contextOptions(svid));
}

/**
 * The certificates the peer sent, leaf first, as DER; empty where it sent none. The handshake proved that the peer holds the
 * leaf's key; whether the chain is any good is for core/spiffe to say.
 */
export function peerChain(socket: TLSSocket): Uint8Array[] {
  return certificateChain(socket.getPeerCertificate(true));
}

export function certificateChain(leaf: DetailedPeerCertificate): Uint8Array[] {
  const chain: Uint8Array[] = [];
  let current: DetailedPeerCertificate | undefined = leaf;
  while (current?.raw !== undefined && chain.length < MAX_CHAIN) {
    chain.push(current.raw);
    const issuer: DetailedPeerCertificate | undefined = current.issuerCertificate;
    if (issuer === undefined || issuer === current || issuer.fingerprint256 === current.fingerprint256) {
      break;
    }
    current = issuer;
  }
  return chain;
}
