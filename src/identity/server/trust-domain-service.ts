import type { MessageInitShape } from "@bufbuild/protobuf";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Bundle } from "../../core/spiffe/bundle.ts";
import { type EndpointProfile, endpointUrlFault, type Relationship } from "../../core/spiffe/federation.ts";
import { type SpiffeId, spiffeIdFault, type TrustDomain } from "../../core/spiffe/id.ts";
import type { TrustDomain as Api } from "../../gen/spire/api/server/trustdomain/v1/trustdomain_pb.js";
import type {
  FederationRelationshipSchema,
  FederationRelationshipMask as Mask,
  FederationRelationship as Message,
} from "../../gen/spire/api/types/federationrelationship_pb.js";
import { OK_STATUS } from "../../io/rpc/errors.ts";
import { bundleFromWire, bundleToWire, trustDomainFromWire } from "./bundle-wire.ts";
import type { Bundles } from "./bundles.ts";
import { eachInTurn } from "./entry-service.ts";
import type { Federation } from "./federation/federation.ts";
import type { GuardedHandlers } from "./guard.ts";
import { masked, names, page } from "./wire.ts";

/** spire.api.server.trustdomain.v1.TrustDomain: relationships that are made and ended while the server runs. */
export function trustDomainService(federation: Federation, bundles: Bundles): GuardedHandlers<typeof Api> {
  const toWire = (one: Relationship, mask?: Mask) =>
    relationshipToWire(one, bundles.federatedWith(one.trustDomain), mask);
  const take = async (bundle: Bundle | null): Promise<void> => {
    if (bundle !== null) {
      await bundles.set(bundle.trustDomain, () => bundle);
    }
  };
  return {
    listFederationRelationships({ outputMask, pageSize, pageToken }) {
      const found = page(federation.relationships(), ({ trustDomain }) => trustDomain, pageSize, pageToken);
      return {
        federationRelationships: found.items.map((one) => toWire(one, outputMask)),
        nextPageToken: found.nextPageToken,
      };
    },
    getFederationRelationship({ trustDomain, outputMask }) {
      const found = federation.relationship(nameFromWire(trustDomain));
      if (found === null) {
        throw new EveryhopError("not-found", "federation relationship does not exist");
      }
      return toWire(found, outputMask);
    },
    async batchCreateFederationRelationship({ federationRelationships, outputMask }) {
      const results = await eachInTurn(federationRelationships, async (message) => {
        const trustDomain = converted(() => nameFromWire(message.trustDomain));
        if (trustDomain === bundles.own.value.trustDomain) {
          const what = "unable to create federation relationship for server trust domain";
          throw new EveryhopError("invalid-argument", what);
        }
        const profile = converted(() => profileFromWire(message));
        const made = { trustDomain, url: converted(() => urlFromWire(message)), profile };
        const bundle = converted(() => firstBundle(message, trustDomain));
        await federation.create(made, () => take(bundle));
        return { status: OK_STATUS, federationRelationship: toWire(made, outputMask) };
      });
      return { results };
    },
    async batchUpdateFederationRelationship({ federationRelationships, inputMask, outputMask }) {
      const results = await eachInTurn(federationRelationships, async (message) => {
        const trustDomain = converted(() => nameFromWire(message.trustDomain));
        const url = names(inputMask, "bundleEndpointUrl") ? converted(() => urlFromWire(message)) : null;
        const profile = names(inputMask, "bundleEndpointProfile") ? converted(() => profileFromWire(message)) : null;
        const bundle = names(inputMask, "trustDomainBundle")
          ? converted(() => firstBundle(message, trustDomain))
          : null;
        const change = (current: Relationship): Relationship => ({
          trustDomain,
          url: url ?? current.url,
          profile: profile ?? current.profile,
        });
        const changed = await federation.update(trustDomain, change, () => take(bundle));
        return { status: OK_STATUS, federationRelationship: toWire(changed, outputMask) };
      });
      return { results };
    },
    async batchDeleteFederationRelationship({ trustDomains }) {
      const results = await eachInTurn(trustDomains, async (name) => {
        if (name === "") {
          throw new EveryhopError("invalid-argument", "missing trust domain");
        }
        if (!(await federation.delete(nameFromWire(name)))) {
          throw new EveryhopError("not-found", "federation relationship not found");
        }
        return { status: OK_STATUS };
      });
      return { results: results.map((result, index) => ({ ...result, trustDomain: trustDomains[index] ?? "" })) };
    },
    async refreshBundle({ trustDomain }) {
      await federation.refresh(nameFromWire(trustDomain));
      return {};
    },
  };
}

function nameFromWire(name: string): TrustDomain {
  try {
    return trustDomainFromWire(name);
  } catch (error) {
    throw new EveryhopError("invalid-argument", `failed to parse trust domain: ${(error as Error).message}`);
  }
}

/** In SPIRE's words. */
function converted<T>(convert: () => T): T {
  try {
    return convert();
  } catch (error) {
    const what = `failed to convert federation relationship: ${(error as Error).message}`;
    throw new EveryhopError("invalid-argument", what);
  }
}

function urlFromWire({ bundleEndpointUrl }: Message): string {
  const fault = endpointUrlFault(bundleEndpointUrl);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", fault);
  }
  return bundleEndpointUrl;
}

function profileFromWire({ bundleEndpointProfile }: Message): EndpointProfile {
  if (bundleEndpointProfile.case === undefined) {
    throw new EveryhopError("invalid-argument", "unsupported bundle endpoint profile type");
  }
  if (bundleEndpointProfile.case === "httpsWeb") {
    return { kind: "https_web" };
  }
  const { endpointSpiffeId } = bundleEndpointProfile.value;
  const fault = spiffeIdFault(endpointSpiffeId);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `failed to parse endpoint SPIFFE ID: ${fault}`);
  }
  return { kind: "https_spiffe", endpointSpiffeId: endpointSpiffeId as SpiffeId };
}

/** INVARIANT: a relationship's bundle is of its own trust domain. */
function firstBundle({ trustDomainBundle }: Message, trustDomain: TrustDomain): Bundle | null {
  if (trustDomainBundle === undefined) {
    return null;
  }
  const bundle = bundleFromWire(trustDomainBundle);
  if (bundle.trustDomain !== trustDomain) {
    const [theirs, ours] = [bundle.trustDomain, trustDomain];
    const what = `trust domain bundle ("${theirs}") must match the trust domain of the federation relationship ("${ours}")`;
    throw new EveryhopError("invalid-argument", what);
  }
  return bundle;
}

type Init = MessageInitShape<typeof FederationRelationshipSchema>;

function relationshipToWire({ trustDomain, url, profile }: Relationship, bundle: Bundle | null, mask?: Mask): Init {
  const bundleEndpointProfile: Init["bundleEndpointProfile"] =
    profile.kind === "https_web"
      ? { case: "httpsWeb", value: {} }
      : { case: "httpsSpiffe", value: { endpointSpiffeId: profile.endpointSpiffeId } };
  const message = {
    trustDomain: trustDomain as string,
    bundleEndpointUrl: url,
    bundleEndpointProfile,
    ...(bundle === null ? {} : { trustDomainBundle: bundleToWire(bundle) }),
  };
  return masked(message, mask, ["trustDomain"]) as Init;
}
