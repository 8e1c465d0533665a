/** A snapshot off the wire, checked field by field: what is not understood is refused, and the last good one stays. */
import { fromBinary } from "@bufbuild/protobuf";
import type { Protocol, Snapshot, Upstream } from "../core/api/snapshot.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { parseSpiffeId, parseTrustDomain } from "../core/spiffe/id.ts";
import { type Snapshot as SnapshotMessage, SnapshotSchema } from "../gen/everyhop/proxy/snapshot_pb.js";
import { parseAddress } from "../io/net.ts";

const PROTOCOLS: readonly string[] = ["http", "http2", "grpc", "tcp"] satisfies Protocol[];

/** Errors: `invalid-argument`, naming the field. */
export function readSnapshot(bytes: Uint8Array): Snapshot {
  let message: SnapshotMessage;
  try {
    message = fromBinary(SnapshotSchema, bytes);
  } catch (error) {
    throw new EveryhopError("invalid-argument", "the snapshot is not readable", { cause: error });
  }
  const { workload } = message;
  if (workload === undefined) {
    throw new EveryhopError("invalid-argument", "the snapshot has no workload");
  }
  return {
    version: message.version,
    trustDomain: parseTrustDomain(message.trustDomain),
    meshConfig: message.meshConfig,
    workload: {
      name: workload.name,
      namespace: workload.namespace,
      serviceAccount: workload.serviceAccount,
      labels: workload.labels,
      spiffeId: parseSpiffeId(workload.spiffeId),
      port: portOf(workload.port, workload.name),
      protocol: protocolOf(workload.protocol, workload.name),
    },
    upstreams: message.upstreams.map(readUpstream),
    policies: message.policies,
    bundles: new Map(message.bundles.map(({ path, content }) => [path, content])),
    keySets: new Map(message.keySets.map(({ uri, keys }) => [uri, keys])),
    kills: message.kills.map(({ order, spiffeId }) => ({ order, spiffeId: parseSpiffeId(spiffeId) })),
  };
}

function readUpstream(upstream: SnapshotMessage["upstreams"][number]): Upstream {
  const { name, namespace, labels, endpoints } = upstream;
  for (const endpoint of endpoints) {
    if (parseAddress(endpoint) === null) {
      throw new EveryhopError("invalid-argument", `\`${endpoint}\` of service \`${name}\` is not an address`);
    }
  }
  return {
    name,
    namespace,
    spiffeId: parseSpiffeId(upstream.spiffeId),
    port: portOf(upstream.port, name),
    protocol: protocolOf(upstream.protocol, name),
    labels,
    endpoints,
  };
}

function portOf(port: number, service: string): number {
  if (port < 1 || port > 65_535) {
    throw new EveryhopError("invalid-argument", `${port} of service \`${service}\` is not a port`);
  }
  return port;
}

function protocolOf(protocol: string, service: string): Protocol {
  if (!PROTOCOLS.includes(protocol)) {
    throw new EveryhopError("invalid-argument", `\`${protocol}\` of service \`${service}\` is not a protocol`, {
      hint: `known are: ${PROTOCOLS.join(", ")}`,
    });
  }
  return protocol as Protocol;
}
