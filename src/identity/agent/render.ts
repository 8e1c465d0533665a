/** The messages of Workload API and Broker API, which share their fields. */
import { create, toBinary } from "@bufbuild/protobuf";
import type { Selector } from "../../core/entries/selector.ts";
import { formatJwtBundle } from "../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import {
  JWTBundlesResponseSchema,
  X509BundlesResponseSchema,
  X509SVIDResponseSchema,
} from "../../gen/spiffe/workload_pb.js";
import { type CallEnd, unavailable } from "./answer.ts";
import type { Entitlement, HeldBundle, IdentityCache } from "./cache.ts";
import type { Rendered } from "./stream.ts";

export type Render = (selectors: readonly Selector[]) => Rendered;

export type Renderers = ReturnType<typeof renderers>;

/**
 * Renderers for one of the two APIs; `noIdentity` is how it says that nothing is issued. With `bundlesForAll` who has no identity gets
 * the own trust domain's bundles all the same. The broker's messages are those of the
 * Workload API field by field (numbers too), so one encoding serves both.
 */
export function renderers(cache: IdentityCache, noIdentity: () => CallEnd, bundlesForAll = false) {
  const entitled =
    (render: (entitlement: Entitlement) => Rendered, everyone = false): Render =>
    (selectors) => {
      const entitlement = cache.entitlement(selectors);
      const none = entitlement.identities.length === 0 && entitlement.missing.length === 0;
      return none && !everyone ? { kind: "end", end: noIdentity() } : render(entitlement);
    };
  const bundles = (encode: (held: readonly HeldBundle[]) => Buffer) =>
    entitled((entitlement) => {
      const held = entitlement.bundles;
      return { kind: "message", key: bundlesKey(held), message: () => encode(held) };
    }, bundlesForAll);
  return { x509Svids: entitled(renderX509Svids), x509Bundles: bundles(x509Bundles), jwtBundles: bundles(jwtBundles) };
}

function renderX509Svids(entitlement: Entitlement): Rendered {
  const { identities, missing, bundles } = entitlement;
  if (missing.some(({ failure }) => failure === null)) {
    return { kind: "wait" };
  }
  const [failed] = missing;
  if (identities.length === 0 && failed !== undefined) {
    return { kind: "end", end: unavailable(`no SVID could be obtained: ${failed.failure}`) };
  }
  const key = [...identities.map(({ entry, svid }) => `${entry.id}/${svid.serial}/${entry.hint}`), bundlesKey(bundles)];
  return { kind: "message", key: key.join(" "), message: () => x509Svids(entitlement) };
}

function x509Svids({ identities, bundles: [own, ...federated] }: Entitlement): Buffer {
  const bundle = Buffer.concat(own?.bundle.x509Authorities ?? []);
  const message = create(X509SVIDResponseSchema, {
    svids: identities.map(({ entry, svid }) => ({
      spiffeId: svid.id,
      x509Svid: Buffer.concat(svid.chain),
      x509SvidKey: svid.keyDer,
      bundle,
      hint: entry.hint,
    })),
    federatedBundles: byTrustDomain(federated, ({ bundle: { x509Authorities } }) => Buffer.concat(x509Authorities)),
  });
  return bufferOf(toBinary(X509SVIDResponseSchema, message));
}

function x509Bundles(held: readonly HeldBundle[]): Buffer {
  const bundles = byTrustDomain(held, ({ bundle }) => Buffer.concat(bundle.x509Authorities));
  return bufferOf(toBinary(X509BundlesResponseSchema, create(X509BundlesResponseSchema, { bundles })));
}

function jwtBundles(held: readonly HeldBundle[]): Buffer {
  const bundles = byTrustDomain(held, ({ bundle }) => Buffer.from(formatJwtBundle(bundle)));
  return bufferOf(toBinary(JWTBundlesResponseSchema, create(JWTBundlesResponseSchema, { bundles })));
}

/** SPEC: Workload API §5.2: keyed by the SPIFFE ID of the trust domain. */
export function byTrustDomain(
  held: readonly HeldBundle[],
  bytes: (held: HeldBundle) => Uint8Array,
): Record<string, Uint8Array> {
  const key = (name: TrustDomain) => `spiffe://${name}`;
  return Object.fromEntries(held.map((one) => [key(one.bundle.trustDomain), bytes(one)]));
}

export function bundlesKey(held: readonly HeldBundle[]): string {
  return held.map(({ bundle, version }) => `${bundle.trustDomain}@${version}`).join(",");
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
