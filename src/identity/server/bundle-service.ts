import { EveryhopError } from "../../core/base/errors.ts";
import type { JwtAuthority, Bundle as Value } from "../../core/spiffe/bundle.ts";
import {
  type Bundle,
  BatchDeleteFederatedBundleRequest_Mode as Mode,
} from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import type { BundleMask, Bundle as BundleMessage } from "../../gen/spire/api/types/bundle_pb.js";
import { OK_STATUS } from "../../io/rpc/errors.ts";
import type { Upstream } from "../authority/upstream.ts";
import {
  authoritiesFromWire,
  bundleFromWire,
  bundleToWire,
  jwtAuthorityToWire,
  trustDomainFromWire,
} from "./bundle-wire.ts";
import type { Bundles, DeleteMode } from "./bundles.ts";
import { eachInTurn } from "./entry-service.ts";
import type { GuardedHandlers } from "./guard.ts";
import { names, page } from "./wire.ts";

const MODES: Readonly<Record<number, DeleteMode>> = {
  [Mode.RESTRICT]: "restrict",
  [Mode.DELETE]: "delete",
  [Mode.DISSOCIATE]: "dissociate",
};

/** spire.api.server.bundle.v1.Bundle. */
export function bundleService(bundles: Bundles, upstream: Upstream | null): GuardedHandlers<typeof Bundle> {
  return {
    countBundles: () => ({ count: bundles.federated().length + 1 }),
    getBundle: ({ outputMask }) => bundleToWire(bundles.own.value, outputMask),
    async appendBundle({ outputMask, ...authorities }) {
      if (authorities.x509Authorities.length + authorities.jwtAuthorities.length === 0) {
        throw new EveryhopError("invalid-argument", "no authorities to append");
      }
      return bundleToWire(await bundles.append(authoritiesFromWire(authorities)), outputMask);
    },
    async publishJWTAuthority({ jwtAuthority }) {
      if (jwtAuthority === undefined) {
        throw new EveryhopError("invalid-argument", "missing JWT authority");
      }
      const [key] = authoritiesFromWire({ x509Authorities: [], jwtAuthorities: [jwtAuthority] }).jwtAuthorities;
      await publishKey(key as JwtAuthority, bundles, upstream);
      return { jwtAuthorities: bundles.own.value.jwtAuthorities.map(jwtAuthorityToWire) };
    },
    listFederatedBundles({ outputMask, pageSize, pageToken }) {
      const found = page(bundles.federated(), ({ trustDomain }) => trustDomain, pageSize, pageToken);
      return {
        bundles: found.items.map((bundle) => bundleToWire(bundle, outputMask)),
        nextPageToken: found.nextPageToken,
      };
    },
    getFederatedBundle({ trustDomain, outputMask }) {
      const name = trustDomainFromWire(trustDomain);
      if (name === bundles.own.value.trustDomain) {
        throw new EveryhopError("invalid-argument", "the server's own trust domain is not a federated one");
      }
      const bundle = bundles.federatedWith(name);
      if (bundle === null) {
        throw new EveryhopError("not-found", "bundle not found");
      }
      return bundleToWire(bundle, outputMask);
    },
    ...batchMethods(bundles),
  };
}

/** INVARIANT: a key keeps its name: nobody below can put another one under it. Known above, where there is somebody above. */
async function publishKey(key: JwtAuthority, bundles: Bundles, upstream: Upstream | null): Promise<void> {
  const known = bundles.own.value.jwtAuthorities.find(({ keyId }) => keyId === key.keyId);
  if (known !== undefined && Buffer.compare(known.publicKey, key.publicKey) !== 0) {
    throw new EveryhopError("invalid-argument", "invalid JWT authority: another key has its ID");
  }
  if (key.expiresAtMs === null) {
    throw new EveryhopError("invalid-argument", "invalid JWT authority: it has no end");
  }
  const untainted = { ...key, tainted: false };
  if (upstream === null || upstream.publish === null) {
    await bundles.append({ x509Authorities: [], taintedX509KeyIds: [], jwtAuthorities: [untainted] });
  } else {
    await upstream.publish(untainted);
  }
}

type Batches =
  | "batchCreateFederatedBundle"
  | "batchUpdateFederatedBundle"
  | "batchSetFederatedBundle"
  | "batchDeleteFederatedBundle";

function batchMethods(bundles: Bundles): Pick<GuardedHandlers<typeof Bundle>, Batches> {
  const each = async (
    messages: readonly BundleMessage[],
    outputMask: BundleMask | undefined,
    change: (current: Value | null, given: Value) => Value,
  ) => ({
    results: await eachInTurn(messages, async (message) => {
      const given = bundleFromWire(message);
      const bundle = await bundles.set(given.trustDomain, (current) => change(current, given));
      return { status: OK_STATUS, bundle: bundleToWire(bundle, outputMask) };
    }),
  });
  return {
    batchCreateFederatedBundle: ({ bundle, outputMask }) =>
      each(bundle, outputMask, (current, given) => {
        if (current !== null) {
          throw new EveryhopError("already-exists", "bundle already exists");
        }
        return given;
      }),
    batchSetFederatedBundle: ({ bundle, outputMask }) => each(bundle, outputMask, (_current, given) => given),
    batchUpdateFederatedBundle: ({ bundle, inputMask, outputMask }) =>
      each(bundle, outputMask, (current, given) => {
        if (current === null) {
          throw new EveryhopError("not-found", "bundle not found");
        }
        return mergeBundle(current, given, inputMask);
      }),
    async batchDeleteFederatedBundle({ trustDomains, mode }) {
      const results = await eachInTurn(trustDomains, async (name) => {
        const how = MODES[mode];
        if (how === undefined) {
          throw new EveryhopError("invalid-argument", `unhandled delete mode ${mode}`);
        }
        await bundles.delete(trustDomainFromWire(name), how);
        return { status: OK_STATUS };
      });
      return { results: results.map((result, index) => ({ ...result, trustDomain: trustDomains[index] ?? "" })) };
    },
  };
}

function mergeBundle(current: Value, given: Value, mask: BundleMask | undefined): Value {
  const from = (field: string): Value => (names(mask, field) ? given : current);
  return {
    ...current,
    x509Authorities: from("x509Authorities").x509Authorities,
    taintedX509KeyIds: from("x509Authorities").taintedX509KeyIds,
    jwtAuthorities: from("jwtAuthorities").jwtAuthorities,
    refreshHintMs: from("refreshHint").refreshHintMs,
    sequence: from("sequenceNumber").sequence,
  };
}
