/** The identity of another process of this machine, from the SPIFFE Broker API of the local agent. For sidecars. */
import { create } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata } from "@grpc/grpc-js";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import { pathOf, type SpiffeId, type TrustDomain, trustDomainOf } from "../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import { bundlesOf, verifyX509Svid } from "../core/spiffe/x509-svid.ts";
import {
  API,
  KubernetesObjectReferenceSchema,
  type SubscribeToX509SVIDResponse,
  WorkloadPIDReferenceSchema,
} from "../gen/spiffe/broker/api_pb.js";
import type { Log } from "../io/log.ts";
import { makeClient } from "../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../io/rpc/channel.ts";
import { readX509 } from "./read-x509.ts";
import { socketTarget } from "./socket.ts";
import { follow, type X509Source } from "./x509-source.ts";

export interface WatchBrokerOptions {
  /** `unix:///abs/path` or the path. */
  readonly brokerSocket: string;
  /** Our own identity, with which the agent lets us in: as `watchX509` gives it. */
  readonly own: { readonly svid: Cell<X509Svid | null>; readonly bundles: Cell<X509Bundles> };
  /** Whose identity is wanted. */
  readonly workload: { readonly pid: number } | { readonly object: KubernetesObject };
  /** The identity it must have: another one is not used. */
  readonly spiffeId: SpiffeId;
  readonly log: Log;
  readonly clock: Clock;
  readonly random?: () => number;
}

/** SPEC: Broker API §3.1.3. `group` is `core` for the core group; name (with its namespace, where the type has them), uid, or both. */
export interface KubernetesObject {
  readonly plural: string;
  readonly group: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/**
 * Follows the identity of a process or a Kubernetes object. While `own.svid` is null it waits; when that rotates it connects anew, and the values
 * stay meanwhile. `svid` becomes null as soon as that ends or is no longer what its registration says.
 */
export function watchBroker(options: WatchBrokerOptions): X509Source {
  const { own, spiffeId, clock } = options;
  const target = socketTarget(options.brokerSocket);
  const source = follow<SubscribeToX509SVIDResponse>({
    ...options,
    open() {
      const client = brokerClient(target, own, clock);
      if (client === null) {
        return null;
      }
      const stream = client.subscribeToX509SVID(
        { reference: referenceTo(options.workload) },
        { metadata: brokerMetadata() },
      );
      return {
        stream,
        end() {
          stream.cancel();
          client.close();
        },
      };
    },
    read: (response) => readX509(response, clock.now()),
    choose: (svids) => svids.find(({ id }) => id === spiffeId) ?? null,
  });
  // The agent ends a connection when the certificate it began with expires: a new one is made before that.
  const unwatch = own.svid.watch((svid) => svid !== null && source.restart());
  return {
    ...source,
    close() {
      unwatch();
      source.close();
    },
  };
}

/** A client of the Broker API on a connection of its own; null while we have no identity. */
function brokerClient(target: string, own: WatchBrokerOptions["own"], clock: Clock) {
  const svid = own.svid.value;
  if (svid === null) {
    return null;
  }
  const trustDomain = trustDomainOf(svid.id);
  const credentials = spiffeCredentials({
    svid: new Cell<X509Svid | null>(svid),
    authorities: new Cell(own.bundles.value.get(trustDomain) ?? []),
    refuse: (chain) => agentFault(chain, trustDomain, own.bundles.value, clock.now()),
  });
  return makeClient(API, target, credentials, { ...SPIFFE_CHANNEL_OPTIONS, "grpc.use_local_subchannel_pool": 1 });
}

/** Only an agent of our own trust domain is asked. */
function agentFault(
  chain: readonly Uint8Array[],
  trustDomain: TrustDomain,
  bundles: X509Bundles,
  now: number,
): string | null {
  const verified = verifyX509Svid(chain, bundlesOf(bundles), now);
  if (!verified.ok) {
    return verified.message;
  }
  return verified.trustDomain === trustDomain && pathOf(verified.id).startsWith("/spire/agent/")
    ? null
    : `\`${verified.id}\` is not an agent of \`${trustDomain}\``;
}

function referenceTo(workload: WatchBrokerOptions["workload"]) {
  return "pid" in workload ? pidReference(workload.pid) : objectReference(workload.object);
}

/** A reference to a Kubernetes object, as the Broker API takes it. */
export function objectReference({ plural, group, namespace, name, uid }: KubernetesObject) {
  const reference = create(KubernetesObjectReferenceSchema, {
    type: { plural, group },
    ...(name === "" ? {} : { key: { namespace, name } }),
    uid,
  });
  return { reference: anyPack(KubernetesObjectReferenceSchema, reference) };
}

/** A reference to a process, as the Broker API takes it. SPEC: Broker API §3.2.1. */
export function pidReference(pid: number) {
  return { reference: anyPack(WorkloadPIDReferenceSchema, create(WorkloadPIDReferenceSchema, { pid })) };
}

/** SPEC: Broker Endpoint §5. */
export function brokerMetadata(): Metadata {
  const metadata = new Metadata();
  metadata.set("broker.spiffe.io", "true");
  return metadata;
}
