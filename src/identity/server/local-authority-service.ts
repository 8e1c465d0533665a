import { EveryhopError } from "../../core/base/errors.ts";
import type { LocalAuthority } from "../../gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import type { Authority } from "../authority/authority.ts";
import type { Rotation } from "../authority/rotation.ts";
import { lastOld, type Rotated, type SlotState, slotIn } from "../authority/slots.ts";
import type { Upstream } from "../authority/upstream.ts";
import type { X509Authority } from "../authority/x509-authority.ts";
import type { Bundles } from "./bundles.ts";
import type { GuardedHandlers } from "./guard.ts";
import { seconds } from "./wire.ts";

/** spire.api.server.localauthority.v1.LocalAuthority: an operator prepares, activates, taints and revokes what signs. */
export function localAuthorityService(
  { x509, jwt, upstream }: Authority,
  bundles: Pick<Bundles, "withdrawKey">,
): GuardedHandlers<typeof LocalAuthority> {
  return {
    getX509AuthorityState: () => stateOf(x509),
    getJWTAuthorityState: () => stateOf(jwt),
    prepareX509Authority: async () => ({ preparedAuthority: toWire(await x509.prepare()) }),
    prepareJWTAuthority: async () => ({ preparedAuthority: toWire(await jwt.prepare()) }),
    activateX509Authority: async ({ authorityId }) => ({
      activatedAuthority: toWire(await x509.activate(authorityId)),
    }),
    activateJWTAuthority: async ({ authorityId }) => ({ activatedAuthority: toWire(await jwt.activate(authorityId)) }),
    async taintX509Authority({ authorityId }) {
      refuseBelow(upstream, "tainted");
      return { taintedAuthority: toWire(await x509.taint(authorityId)) };
    },
    taintJWTAuthority: async ({ authorityId }) => ({
      taintedAuthority: { authorityId: (await jwt.taint(authorityId)).id },
    }),
    async revokeX509Authority({ authorityId }) {
      refuseBelow(upstream, "revoked");
      return { revokedAuthority: { authorityId: (await x509.revoke(authorityId)).id } };
    },
    async revokeJWTAuthority({ authorityId }) {
      await revokeKey(jwt, bundles, authorityId);
      // It came back from above else: its name is known there.
      await upstream?.revoke(authorityId);
      return { revokedAuthority: { authorityId } };
    },
    async taintX509UpstreamAuthority({ subjectKeyId }) {
      const id = upstreamId(x509, upstream, subjectKeyId, "provided subject key id is not valid");
      await upstream?.taint(id);
      return { upstreamAuthoritySubjectKeyId: id };
    },
    async revokeX509UpstreamAuthority({ subjectKeyId }) {
      const id = upstreamId(x509, upstream, subjectKeyId, "invalid subject key ID");
      await upstream?.revoke(id);
      return { upstreamAuthoritySubjectKeyId: id };
    },
  };
}

/** As SPIRE: an old key of ours, or one of the bundle that is none of ours. Errors: in SPIRE's words. */
async function revokeKey(jwt: Authority["jwt"], bundles: Pick<Bundles, "withdrawKey">, id: string): Promise<void> {
  const slot = jwt.slots.find(({ authority }) => authority.id === id);
  if (slot?.state === "prepared") {
    throw new EveryhopError("invalid-argument", "invalid authority ID: unable to use a prepared key");
  }
  if (slot !== undefined || id === "") {
    await jwt.revoke(id);
  } else if (!(await bundles.withdrawKey(id))) {
    throw new EveryhopError(
      "invalid-argument",
      "invalid authority ID: no JWT authority found with provided authority ID",
    );
  }
}

/** What hangs below an upstream authority is believed by that one's roots: there it is tainted and revoked. */
function refuseBelow(upstream: Upstream | null, done: string): void {
  if (upstream !== null) {
    throw new EveryhopError(
      "failed-precondition",
      `local authority can't be ${done} if there is an upstream authority`,
      { hint: "`--subject-key-id` names the upstream authority itself" },
    );
  }
}

/** The upstream authority that `given` names, if it stands above an old CA of ours and above no other. Errors: in SPIRE's words. */
function upstreamId(
  { slots }: Rotation<X509Authority>,
  upstream: Upstream | null,
  given: string,
  refusal: string,
): string {
  if (upstream === null) {
    throw new EveryhopError("failed-precondition", "upstream authority is not configured");
  }
  const id = given.toLowerCase();
  const above = (state: SlotState): boolean =>
    slots.some((slot) => slot.state === state && slot.authority.upstreamId === id);
  const faults: readonly (readonly [boolean, string])[] = [
    [id === "", "no subject key ID provided"],
    [above("active"), "unable to use upstream authority signing current authority"],
    [above("prepared"), "only upstream authorities signing an old authority can be used"],
    [!above("old"), "upstream authority didn't sign the old local authority"],
  ];
  const fault = faults.find(([holds]) => holds)?.[1];
  if (fault !== undefined) {
    throw new EveryhopError("invalid-argument", `${refusal}: ${fault}`, {
      hint: "`everyhop authority show` says which upstream authority each of ours has",
    });
  }
  return id;
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

function toWire(authority: Rotated & { readonly upstreamId?: string | null }) {
  const { id, notAfterMs, upstreamId: upstreamAuthoritySubjectKeyId } = authority;
  return {
    authorityId: id,
    expiresAt: seconds(notAfterMs),
    upstreamAuthoritySubjectKeyId: upstreamAuthoritySubjectKeyId ?? "",
  };
}
