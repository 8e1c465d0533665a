/** The messages of SPIRE's Delegated Identity API. */
import { create, toBinary } from "@bufbuild/protobuf";
import { formatJwtBundle } from "../../core/spiffe/bundle.ts";
import { parseSpiffeId, pathOf, type SpiffeId, trustDomainOf } from "../../core/spiffe/id.ts";
import {
  SubscribeToJWTBundlesResponseSchema,
  SubscribeToX509BundlesResponseSchema,
  SubscribeToX509SVIDsResponseSchema,
} from "../../gen/spire/api/agent/delegatedidentity/v1/delegatedidentity_pb.js";
import type { Entitlement, HeldBundle, IdentityCache } from "./cache.ts";
import { bundlesKey, byTrustDomain } from "./render.ts";
import type { Rendered } from "./stream.ts";

export function idMessage(id: SpiffeId): { trustDomain: string; path: string } {
  return { trustDomain: trustDomainOf(parseSpiffeId(id)), path: pathOf(id) };
}

/** INVARIANT: SVIDs of administrators and downstream servers are nobody else's. */
export function delegatedX509Svids({ identities, missing, bundles }: Entitlement): Rendered {
  if (missing.some(({ failure }) => failure === null)) {
    return { kind: "wait" };
  }
  const given = identities.filter(({ entry: { admin, downstream } }) => !admin && !downstream);
  const federatesWith = bundles
    .slice(1)
    .map(({ bundle }) => `spiffe://${bundle.trustDomain}`)
    .sort();
  const key = [...given.map(({ entry, svid }) => `${entry.id}/${svid.serial}/${entry.hint}`), ...federatesWith];
  const message = () => ({
    x509Svids: given.map(({ entry, svid }) => ({
      x509Svid: {
        id: idMessage(svid.id),
        certChain: [...svid.chain],
        expiresAt: BigInt(Math.floor(svid.notAfter / 1_000)),
        hint: entry.hint,
      },
      x509SvidKey: svid.keyDer,
    })),
    federatesWith,
  });
  const schema = SubscribeToX509SVIDsResponseSchema;
  return { kind: "message", key: key.join(" "), message: () => bufferOf(toBinary(schema, create(schema, message()))) };
}

/** The bundles of the own and every federated trust domain. SPEC: SPIRE's agent keys them by SPIFFE ID, whatever the API's comment says. */
export function allX509Bundles(cache: IdentityCache): Rendered {
  return bundlesMessage(cache, (held) => {
    const caCertificates = byTrustDomain(held, ({ bundle }) => Buffer.concat(bundle.x509Authorities));
    const schema = SubscribeToX509BundlesResponseSchema;
    return toBinary(schema, create(schema, { caCertificates }));
  });
}

export function allJwtBundles(cache: IdentityCache): Rendered {
  return bundlesMessage(cache, (held) => {
    const bundles = byTrustDomain(held, ({ bundle }) => Buffer.from(formatJwtBundle(bundle)));
    const schema = SubscribeToJWTBundlesResponseSchema;
    return toBinary(schema, create(schema, { bundles }));
  });
}

function bundlesMessage(cache: IdentityCache, encode: (held: readonly HeldBundle[]) => Uint8Array): Rendered {
  const held = cache.heldBundles;
  return { kind: "message", key: bundlesKey(held), message: () => bufferOf(encode(held)) };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
