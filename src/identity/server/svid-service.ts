import { EveryhopError } from "../../core/base/errors.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { certificateOutOfScope } from "../../core/entries/role.ts";
import { parseSpiffeId, pathOf, type SpiffeId, trustDomainOf } from "../../core/spiffe/id.ts";
import { verifyCsr } from "../../core/x509/csr.ts";
import { dnsNameFault } from "../../core/x509/dns-name.ts";
import type { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { itemStatus, OK_STATUS } from "../../io/rpc/errors.ts";
import type { IssuedJwtSvid } from "../authority/jwt-authority.ts";
import type { IssuedX509Svid } from "../authority/x509-authority.ts";
import type { Bundles } from "./bundles.ts";
import type { CallContext, GuardedHandlers } from "./guard.ts";
import type { Issuer } from "./issuer.ts";
import type { Registry } from "./registry.ts";
import { idFromWire, idToWire, milliseconds, seconds } from "./wire.ts";

/** spire.api.server.svid.v1.SVID. */
export function svidService(registry: Registry, issuer: Issuer, bundles: Bundles): GuardedHandlers<typeof SVID> {
  return {
    async mintX509SVID({ csr, ttl }, { scope }) {
      const { id, dnsNames } = askedFor(csr, registry);
      const fault = certificateOutOfScope(scope, id, dnsNames);
      if (fault !== null) {
        throw new EveryhopError("permission-denied", fault);
      }
      return { svid: x509ToWire(await issuer.x509(id, csr, "mint", { ttlMs: ttlMs(ttl), dnsNames })) };
    },
    async mintJWTSVID({ id, audience, ttl }) {
      const spiffeId = memberOf(registry, idFromWire(id, "id"));
      return { svid: jwtToWire(await issuer.jwt(spiffeId, audience, "mint", { ttlMs: ttlMs(ttl) })) };
    },
    async batchNewX509SVID({ params }, context) {
      if (params.length === 0) {
        throw new EveryhopError("invalid-argument", "missing parameters");
      }
      await context.take(params.length);
      // Together, not one after the other: the journal writes the whole batch at once.
      const results = await Promise.all(
        params.map(async ({ entryId, csr }) => {
          try {
            const entry = authorized(registry, context, entryId);
            return { status: OK_STATUS, svid: x509ToWire(await issuer.x509ForEntry(entry, csr), entry.hint) };
          } catch (error) {
            return { status: itemStatus(error) };
          }
        }),
      );
      return { results };
    },
    async newJWTSVID({ entryId, audience }, context) {
      const entry = authorized(registry, context, entryId);
      const options = { ttlMs: entry.jwtSvidTtlMs, includeJwtId: entry.jwtSvidIncludeJti };
      return { svid: jwtToWire(await issuer.jwt(entry.spiffeId, audience, entry.id, options), entry.hint) };
    },
    async newDownstreamX509CA({ csr, preferredTtl }, { caller }) {
      const id = caller.kind === "remote" ? (caller.svid?.id ?? null) : null;
      const entry = id === null ? null : registry.granting(id, "downstream");
      if (entry === null) {
        throw new EveryhopError("permission-denied", "caller is not a downstream workload");
      }
      const caCertChain = await issuer.downstreamCa(entry, csr, ttlMs(preferredTtl));
      return { caCertChain: [...caCertChain], x509Authorities: [...bundles.own.value.x509Authorities] };
    },
  };
}

/** Errors: `invalid-argument`, `not-found`. */
function authorized(registry: Registry, { node }: CallContext, id: string): RegistrationEntry {
  if (id === "") {
    throw new EveryhopError("invalid-argument", "missing entry ID");
  }
  const entry = node === null ? null : registry.authorizedEntry(node.id, id);
  if (entry === null) {
    throw new EveryhopError("not-found", "entry not found or not authorized");
  }
  return entry;
}

function ttlMs(ttl: number): number {
  if (ttl < 0) {
    throw new EveryhopError("invalid-argument", "ttl is negative");
  }
  return milliseconds(ttl);
}

function memberOf(registry: Registry, id: SpiffeId): SpiffeId {
  const path = pathOf(id);
  if (trustDomainOf(id) !== registry.trustDomain || path === "") {
    throw new EveryhopError(
      "invalid-argument",
      `\`${id}\` is no workload of the trust domain \`${registry.trustDomain}\``,
    );
  }
  if (path === "/spire" || path.startsWith("/spire/")) {
    throw new EveryhopError("invalid-argument", `\`${id}\` is under \`/spire\`, which is kept for servers and agents`);
  }
  return id;
}

/** What a certification request asks to have minted: one SPIFFE ID, and DNS names. */
function askedFor(csr: Uint8Array, registry: Registry): { id: SpiffeId; dnsNames: readonly string[] } {
  const { names } = verifyCsr(csr);
  const [uri, ...more] = names?.uris ?? [];
  if (uri === undefined || more.length > 0) {
    throw new EveryhopError("invalid-argument", "the certification request needs exactly one URI name");
  }
  const dnsNames = names?.dnsNames ?? [];
  for (const name of dnsNames) {
    const fault = dnsNameFault(name);
    if (fault !== null) {
      throw new EveryhopError("invalid-argument", `the DNS name \`${name.slice(0, 128)}\` ${fault}`);
    }
  }
  return { id: memberOf(registry, parseSpiffeId(uri)), dnsNames };
}

export function x509ToWire({ chain, id, notAfterMs }: IssuedX509Svid, hint = "") {
  return { certChain: [...chain], id: idToWire(id), expiresAt: seconds(notAfterMs), hint };
}

function jwtToWire({ token, id, issuedAtMs, expiresAtMs }: IssuedJwtSvid, hint = "") {
  return { token, id: idToWire(id), expiresAt: seconds(expiresAtMs), issuedAt: seconds(issuedAtMs), hint };
}
