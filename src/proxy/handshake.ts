/** The server's side of a handshake. TLS 1.3 only, a certificate is asked for; what it proves is for the caller to check. */
import { constants } from "node:crypto";
import type { Socket } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { contextOptions } from "../io/tls.ts";

/** No session is resumed: a ticket would let a peer in whose identity nobody proves again. */
export function serverContext(svid: X509Svid): SecureContext {
  return createSecureContext({
    ...contextOptions(svid),
    secureOptions: constants.SSL_OP_NO_TICKET,
    // OpenSSL ends a handshake that offers a session, instead of refusing the session, where this is not set.
    sessionIdContext: "everyhop",
  });
}

export type HandshakeFault = "handshake-failed" | "handshake-aborted";

/** Wraps `raw`, none of whose bytes are lost. One of the two callbacks is called, once. Returns the TLS socket at once. */
export function shakeHands(
  raw: Socket,
  secureContext: SecureContext,
  done: (socket: TLSSocket) => void,
  failed: (reason: HandshakeFault, message: string) => void,
): TLSSocket {
  const socket = new TLSSocket(raw, {
    isServer: true,
    secureContext,
    requestCert: true,
    // The chain is checked by SPIFFE's rules once the handshake proved that the peer holds the key.
    rejectUnauthorized: false,
  });
  let over = false;
  const once = (then: () => void) => {
    if (!over) {
      over = true;
      then();
    }
  };
  const onError = (error: Error) => once(() => failed("handshake-failed", error.message));
  // Before the handshake is over a TLSSocket of ours says only by this event why it failed.
  socket.on("_tlsError", onError);
  socket.on("error", onError);
  socket.once("close", () => once(() => failed("handshake-aborted", "the peer closed during the handshake")));
  socket.once("secure", () => once(() => done(socket)));
  return socket;
}
