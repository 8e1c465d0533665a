/** Credentials of gRPC clients: a server is who its SPIFFE ID says, and our own SVID may rotate under a living channel. */

import type { DetailedPeerCertificate } from "node:tls";
import { type ChannelCredentials, type ChannelOptions, experimental } from "@grpc/grpc-js";
import type { Cell } from "../../core/base/cell.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { certificateChain, pem, pemChain } from "../tls.ts";

export interface SpiffeChannel {
  /** Our identity; null: connect without one (a node that has none yet). */
  readonly svid: Cell<X509Svid | null> | null;
  /** DER authorities of the server's trust domain. */
  readonly authorities: Cell<readonly Uint8Array[]>;
  /** Says why the server's chain (DER, leaf first) is not acceptable, or null where it is. */
  readonly refuse: (chain: readonly Uint8Array[]) => string | null;
}

/** gRPC channel options that go with them: the authority in the request is not the server's address. */
export const SPIFFE_CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.ssl_target_name_override": "everyhop",
  "grpc.default_authority": "everyhop",
  "grpc.keepalive_time_ms": 20_000,
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 5_000,
};

type Listener<T> = (update: T | null) => void;

/** TLS credentials for `channel`. Certificates are checked at each handshake; both cells may change at any time. */
export function spiffeCredentials(channel: SpiffeChannel): ChannelCredentials {
  const caWatches = new Map<Listener<{ caCertificate: Buffer }>, () => void>();
  const idWatches = new Map<Listener<{ certificate: Buffer; privateKey: Buffer }>, () => void>();
  const ca = (authorities: readonly Uint8Array[]) => ({ caCertificate: Buffer.from(pemChain(authorities)) });
  const identity = (svid: X509Svid | null) =>
    svid === null
      ? null
      : { certificate: Buffer.from(pemChain(svid.chain)), privateKey: Buffer.from(pem("PRIVATE KEY", svid.keyDer)) };
  const provider = {
    addCaCertificateListener(listener: Listener<{ caCertificate: Buffer }>) {
      caWatches.set(
        listener,
        channel.authorities.watch((next) => listener(ca(next))),
      );
      listener(ca(channel.authorities.value));
    },
    removeCaCertificateListener(listener: Listener<{ caCertificate: Buffer }>) {
      caWatches.get(listener)?.();
      caWatches.delete(listener);
    },
    addIdentityCertificateListener(listener: Listener<{ certificate: Buffer; privateKey: Buffer }>) {
      const cell = channel.svid;
      if (cell !== null) {
        idWatches.set(
          listener,
          cell.watch((next) => listener(identity(next))),
        );
        listener(identity(cell.value));
      }
    },
    removeIdentityCertificateListener(listener: Listener<{ certificate: Buffer; privateKey: Buffer }>) {
      idWatches.get(listener)?.();
      idWatches.delete(listener);
    },
  };
  return experimental.createCertificateProviderChannelCredentials(provider, channel.svid === null ? null : provider, {
    checkServerIdentity(_host, certificate) {
      const reason = channel.refuse(certificateChain(certificate as DetailedPeerCertificate));
      return reason === null ? undefined : new Error(reason);
    },
  });
}
