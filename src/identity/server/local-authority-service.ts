import { EveryhopError } from "../../core/base/errors.ts";
import type { LocalAuthority } from "../../gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import type { Authority } from "../authority/authority.ts";
import type { Rotation } from "../authority/rotation.ts";
import { lastOld, type Rotated, slotIn } from "../authority/slots.ts";
import type { GuardedHandlers } from "./guard.ts";
import { seconds } from "./wire.ts";

/** spire.api.server.localauthority.v1.LocalAuthority: an operator prepares, activates, taints and revokes what signs. */
export function localAuthorityService({ x509, jwt }: Authority): GuardedHandlers<typeof LocalAuthority> {
  return {
    getX509AuthorityState: () => stateOf(x509),
    getJWTAuthorityState: () => stateOf(jwt),
    prepareX509Authority: async () => ({ preparedAuthority: toWire(await x509.prepare()) }),
    prepareJWTAuthority: async () => ({ preparedAuthority: toWire(await jwt.prepare()) }),
    activateX509Authority: async ({ authorityId }) => ({
      activatedAuthority: toWire(await x509.activate(authorityId)),
    }),
    activateJWTAuthority: async ({ authorityId }) => ({ activatedAuthority: toWire(await jwt.activate(authorityId)) }),
    taintX509Authority: async ({ authorityId }) => ({ taintedAuthority: toWire(await x509.taint(authorityId)) }),
    taintJWTAuthority: async ({ authorityId }) => ({
      taintedAuthority: { authorityId: (await jwt.taint(authorityId)).id },
    }),
    revokeX509Authority: async ({ authorityId }) => ({
      revokedAuthority: { authorityId: (await x509.revoke(authorityId)).id },
    }),
    revokeJWTAuthority: async ({ authorityId }) => ({
      revokedAuthority: { authorityId: (await jwt.revoke(authorityId)).id },
    }),
    taintX509UpstreamAuthority: noUpstream,
    revokeX509UpstreamAuthority: noUpstream,
  };
}

function stateOf<A extends Rotated>({ slots }: Rotation<A>) {
  const active = slotIn(slots, "active");
  if (active === undefined) {
    throw new EveryhopError("unavailable", "server is initializing");
  }
  const prepared = slotIn(slots, "prepared");
  const old = lastOld(slots);
  return {
    active: toWire(active.authority),
    ...(prepared === undefined ? {} : { prepared: toWire(prepared.authority) }),
    ...(old === undefined ? {} : { old: toWire(old.authority) }),
  };
}

function toWire({ id, notAfterMs }: Rotated) {
  return { authorityId: id, expiresAt: seconds(notAfterMs) };
}

function noUpstream(): never {
  throw new EveryhopError("failed-precondition", "upstream authority is not configured");
}
