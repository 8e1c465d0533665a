/**
 * The slice of a World that one sidecar needs, in wire form. A slice is named by its content, so that a proxy whose slice did
 * not change is sent nothing. Its parts are encoded and digested once and shared by all slices: a protobuf message is the
 * concatenation of its fields.
 */
import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { snapshotName, type WorkloadDescription } from "../core/api/snapshot.ts";
import { selectResources } from "../core/policy/select.ts";
import { SnapshotSchema } from "../gen/everyhop/proxy/snapshot_pb.js";
import { policiesJson } from "./policies.ts";
import type { Service } from "./service.ts";
import { describeWorkload, type World } from "./world.ts";

export interface Slice {
  /** `<namespace>/<service>`. */
  readonly name: string;
  /** Digest of the content, the version number left out. */
  readonly version: string;
  /** The message; made when first asked for. */
  bytes(): Uint8Array;
}

interface Part {
  readonly bytes: Uint8Array;
  readonly digest: Uint8Array;
}

/**
 * The slices of `world` by name. Give the slices of the world before: a slice that is the same is the same object, and so
 * keeps the world version with which its content came to be.
 */
export function slicesOf(world: World, before: ReadonlyMap<string, Slice>): Map<string, Slice> {
  const mesh = part({ trustDomain: world.trustDomain, meshConfig: world.meshConfigJson });
  const kills = part({ kills: world.kills.map(({ order, spiffeId }) => ({ order, spiffeId })) });
  const upstreams = new Map(world.services.map((service) => [service, upstreamPart(service, world)]));
  const slices = new Map<string, Slice>();
  for (const service of world.services) {
    const others = world.services.filter((other) => other !== service);
    const workload = describeWorkload(service, world.trustDomain);
    const own = part({
      workload: { ...workload, labels: sorted(workload.labels) },
      policies: [...policiesJson(world.policies, workload, world.meshConfig)],
      keySets: keySetsFor(world, workload),
      bundles: bundlesFor(world, workload),
    });
    const parts = [mesh, own, kills, ...others.map((other) => upstreams.get(other) as Part)];
    const name = snapshotName(service);
    const slice = makeSlice(name, world.version, parts);
    const last = before.get(name);
    slices.set(name, last?.version === slice.version ? last : slice);
  }
  return slices;
}

/** Those that the policies of `workload` name, in a fixed order. */
function keySetsFor(world: World, workload: WorkloadDescription): { uri: string; keys: string }[] {
  const named = selectResources(world.policies, workload, world.meshConfig).flatMap((resource) =>
    resource.kind === "RequestAuthentication" ? resource.jwtRules.flatMap(({ jwksUri }) => jwksUri ?? []) : [],
  );
  return [...new Set(named)].sort().flatMap((uri) => {
    const keys = world.keySets.get(uri);
    return keys === undefined ? [] : [{ uri, keys }];
  });
}

/** Those that the CUSTOM policies of `workload` ask. */
function bundlesFor(world: World, workload: WorkloadDescription): { path: string; content: Uint8Array }[] {
  const asked = new Set(
    selectResources(world.policies, workload, world.meshConfig).flatMap((resource) =>
      resource.kind === "AuthorizationPolicy" && resource.action === "CUSTOM" ? (resource.provider ?? []) : [],
    ),
  );
  return world.meshConfig.extensionProviders.flatMap(({ name, opaWasm }) => {
    const content = opaWasm === null || !asked.has(name) ? undefined : world.bundles.get(opaWasm.bundle);
    return opaWasm === null || content === undefined ? [] : [{ path: opaWasm.bundle, content }];
  });
}

function upstreamPart(service: Service, world: World): Part {
  const { serviceAccount: _, ...upstream } = describeWorkload(service, world.trustDomain);
  return part({
    upstreams: [{ ...upstream, labels: sorted(upstream.labels), endpoints: [...service.endpoints] }],
  });
}

type Fields = Parameters<typeof create<typeof SnapshotSchema>>[1];

const encode = (fields: Fields): Uint8Array => toBinary(SnapshotSchema, create(SnapshotSchema, fields));

function part(fields: Fields): Part {
  const bytes = encode(fields);
  return { bytes, digest: createHash("sha256").update(bytes).digest() };
}

function makeSlice(name: string, worldVersion: number, parts: readonly Part[]): Slice {
  const hash = createHash("sha256");
  for (const { digest } of parts) {
    hash.update(digest);
  }
  let bytes: Uint8Array | null = null;
  return {
    name,
    version: hash.digest("base64url"),
    bytes() {
      bytes ??= Buffer.concat([encode({ version: worldVersion }), ...parts.map((each) => each.bytes)]);
      return bytes;
    },
  };
}

/** Maps are encoded in the order of their keys' insertion: one content, one encoding. */
function sorted(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}
