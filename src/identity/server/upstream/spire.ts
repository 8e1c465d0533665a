/**
 * An upstream authority that is another server's, everyhop's or SPIRE's: this one proves itself there with an SVID of its own from the
 * agent of its machine, whose entry says `downstream`. SPEC: SPIRE, UpstreamAuthority "spire".
 */
import { Cell } from "../../../core/base/cell.ts";
import type { Clock } from "../../../core/base/clock.ts";
import { EveryhopError } from "../../../core/base/errors.ts";
import { type Bundle, emptyBundle, type JwtAuthority } from "../../../core/spiffe/bundle.ts";
import { serverId, type TrustDomain } from "../../../core/spiffe/id.ts";
import type { X509Svid } from "../../../core/spiffe/svid.ts";
import { bundlesOf, verifyX509Svid } from "../../../core/spiffe/x509-svid.ts";
import { Bundle as BundleApi } from "../../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { SVID } from "../../../gen/spire/api/server/svid/v1/svid_pb.js";
import type { Log } from "../../../io/log.ts";
import { makeClient } from "../../../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../../../io/rpc/channel.ts";
import { fromStatus } from "../../../io/rpc/errors.ts";
import { watchX509 } from "../../../workload/workload-api.ts";
import type { X509Source } from "../../../workload/x509-source.ts";
import type { Upstream } from "../../authority/upstream.ts";
import { authoritiesFromWire, jwtAuthorityToWire } from "../bundle-wire.ts";
import type { KnownBundle } from "./known-bundle.ts";

export interface SpireUpstreamConfig {
  readonly kind: "spire";
  /** `host:port`. */
  readonly server: string;
  /** `unix:///…`, of the agent that gives this server its identity. */
  readonly workloadApiSocket: string;
}

export interface SpireUpstreamOptions {
  readonly config: SpireUpstreamConfig;
  readonly trustDomain: TrustDomain;
  readonly known: KnownBundle;
  readonly clock: Clock;
  readonly log: Log;
}

/** How often what is above is asked for changes. As SPIRE. */
const POLL_MS = 5_000;
/** How long a call waits for the identity to make it with. */
const IDENTITY_MS = 30_000;

export function spireUpstream(options: SpireUpstreamOptions): Upstream & { close(): void } {
  const { config, known, clock, log } = options;
  const source = watchX509({ socket: config.workloadApiSocket, clock, log });
  const api = connect(options, source);
  let closed = false;
  let cancel = (): void => {};
  /** RACE: a poll that asked before something was published must not take it back. */
  let generation = 0;
  const learn = async (): Promise<void> => {
    const asked = generation;
    const told = await api.bundle();
    if (asked === generation) {
      await known.learn(() => told);
    }
  };
  const poll = (): void => {
    cancel = clock.after(POLL_MS, () => {
      (source.svid.value === null ? Promise.resolve() : learn())
        .catch((error: unknown) => log.debug("the upstream server's bundle could not be fetched", { error }))
        .finally(() => closed || poll());
    });
  };
  poll();
  const changed = async <T>(work: () => Promise<T>): Promise<T> => {
    await identity(source, clock);
    const result = await work();
    generation++;
    await learn();
    return result;
  };
  return {
    bundle: known.bundle,
    certify: (csr, ttlMs) => changed(() => api.certify(csr, ttlMs)),
    publish: (key) => changed(() => api.publish(key)),
    taint: (id) => known.taint(id),
    revoke: (id) => known.revoke(id),
    close() {
      closed = true;
      cancel();
      source.close();
      api.close();
    },
  };
}

/** Resolves once there is an SVID to call with. Errors: `unavailable`. */
function identity({ svid, state }: X509Source, clock: Clock): Promise<void> {
  if (svid.value !== null) {
    return Promise.resolve();
  }
  return new Promise((resolve, reject) => {
    const end = (done: () => void): void => {
      unwatch();
      cancel();
      done();
    };
    const unwatch = svid.watch((next) => next !== null && end(resolve));
    const cancel = clock.after(IDENTITY_MS, () => {
      const { value } = state;
      const why = "message" in value ? value.message : value.kind;
      const error = new EveryhopError("unavailable", `this server has no identity for its upstream server: ${why}`, {
        hint: "its agent has to run, and to have an entry with `--downstream` that matches this process",
      });
      end(() => reject(error));
    });
  });
}

function connect({ config, trustDomain, clock }: SpireUpstreamOptions, source: X509Source) {
  const authorities = new Cell<readonly Uint8Array[]>(source.bundles.value.get(trustDomain) ?? []);
  const unwatch = source.bundles.watch((next) => authorities.set(next.get(trustDomain) ?? []));
  const credentials = spiffeCredentials({
    svid: source.svid as Cell<X509Svid | null>,
    authorities,
    refuse: (chain) => {
      const verified = verifyX509Svid(chain, bundlesOf(source.bundles.value), clock.now());
      const wanted = serverId(trustDomain);
      if (!verified.ok) {
        return verified.message;
      }
      return verified.id === wanted ? null : `the upstream server is \`${verified.id}\`, not \`${wanted}\``;
    },
  });
  const own = { ...SPIFFE_CHANNEL_OPTIONS, "grpc.use_local_subchannel_pool": 1 };
  const svids = makeClient(SVID, config.server, credentials, own);
  const bundles = makeClient(BundleApi, config.server, credentials, { share: svids });
  const asking = async <T>(call: Promise<T>): Promise<T> => {
    try {
      return await call;
    } catch (thrown) {
      const { code, message } = fromStatus(thrown);
      throw new EveryhopError(code, `the upstream server \`${config.server}\`: ${message}`, {
        hint: "it has to be reachable, and the entry of this server's identity to say `--downstream`",
        cause: thrown,
      });
    }
  };
  return {
    async certify(csr: Uint8Array, ttlMs: number): Promise<readonly Uint8Array[]> {
      const request = { csr, preferredTtl: Math.floor(ttlMs / 1_000) };
      const { caCertChain } = await asking(svids.newDownstreamX509CA(request));
      return caCertChain;
    },
    async publish(key: JwtAuthority): Promise<void> {
      await asking(bundles.publishJWTAuthority({ jwtAuthority: jwtAuthorityToWire(key) }));
    },
    async bundle(): Promise<Bundle> {
      const message = await asking(bundles.getBundle({}));
      return { ...emptyBundle(trustDomain), ...authoritiesFromWire(message) };
    },
    close() {
      unwatch();
      svids.close();
    },
  };
}
