/** Administrators with limits: who may do what, to which identities. Without a role that says so, nobody may. */
import { pathOf, type SpiffeId, trustDomainOf } from "../spiffe/id.ts";
import type { EntryDraft } from "./entry.ts";

/** What a role may do; each opens the methods that name it in the table of who may call what. */
export const RIGHTS = [
  "entries:read",
  "entries:write",
  "agents:read",
  "agents:write",
  "tokens:create",
  "bundles:read",
  "bundles:write",
  "svids:mint",
  "authorities:read",
  "authorities:write",
  "status:read",
  "kills:write",
  "audit:read",
] as const;

export type Right = (typeof RIGHTS)[number];

export interface Role {
  readonly name: string;
  /** Who has it: SPIFFE IDs, and with a final `/*` all IDs below one. */
  readonly members: readonly string[];
  readonly may: readonly Right[];
  /** To which identities: these and those below them. Null: every identity, and whatever an entry may say. */
  readonly under: readonly SpiffeId[] | null;
  /** Under which parents it may register. Null: under any. */
  readonly parents: readonly SpiffeId[] | null;
  /** DNS names it may put into certificates: exact, or `*.` and a suffix. With `under`, none but these. */
  readonly dnsNames: readonly string[];
}

/** What one caller may do by one right: the roles that give it. Null in its place is no limit at all. */
export type Scope = readonly Role[];

/** The roles of `caller` that have `right`; empty: it may not. */
export function scopeOf(roles: readonly Role[], caller: SpiffeId, right: Right): Scope {
  return roles.filter(({ may, members }) => may.includes(right) && members.some((member) => isMember(caller, member)));
}

function isMember(caller: SpiffeId, member: string): boolean {
  return member.endsWith("/*") ? isBelow(caller, member.slice(0, -2)) : caller === member;
}

/** By whole segments: `/ns/pay` is not above `/ns/payments`. */
function isBelow(id: SpiffeId, above: string): boolean {
  return id.length > above.length && id.startsWith(above) && id.charCodeAt(above.length) === 0x2f;
}

function isWithin(id: SpiffeId, roots: readonly SpiffeId[] | null): boolean {
  return roots === null || roots.some((root) => id === root || isBelow(id, root));
}

/** Whether `scope` covers what is done to `id`. */
export function covers(scope: Scope | null, id: SpiffeId): boolean {
  return scope === null || scope.some(({ under }) => isWithin(id, under));
}

/** Why an entry is out of the scope's reach; null where it is not. INVARIANT: one role allows all of it, or none does. */
export function entryOutOfScope(scope: Scope | null, draft: EntryDraft): string | null {
  if (scope === null) {
    return null;
  }
  const faults = scope.map((role) => outOfRole(role, draft));
  return faults.includes(null) ? null : (faults.at(-1) ?? "no role allows it");
}

function outOfRole({ name, under, parents, dnsNames }: Role, draft: EntryDraft): string | null {
  const { spiffeId, parentId } = draft;
  if (!isWithin(spiffeId as SpiffeId, under)) {
    return `\`${spiffeId}\` is not under what the role \`${name}\` covers`;
  }
  if (!isWithin(parentId as SpiffeId, parents)) {
    return `the parent \`${parentId}\` is not one that the role \`${name}\` may register under`;
  }
  if (under === null) {
    return null;
  }
  if (draft.admin === true || draft.downstream === true) {
    return `the role \`${name}\` is limited, and may not make administrators or downstream servers`;
  }
  const dns = draft.dnsNames?.find((one) => !dnsNames.some((pattern) => matchesDns(one, pattern)));
  return dns === undefined ? null : `the DNS name \`${dns}\` is not one that the role \`${name}\` may use`;
}

function matchesDns(name: string, pattern: string): boolean {
  return pattern.startsWith("*.") ? name.endsWith(pattern.slice(1)) && name.length >= pattern.length : name === pattern;
}

/** As `entryOutOfScope`, for a certificate that no entry stands behind. */
export function certificateOutOfScope(scope: Scope | null, id: SpiffeId, dnsNames: readonly string[]): string | null {
  const roles = scope?.map((role) => ({ ...role, parents: null })) ?? null;
  return entryOutOfScope(roles, { spiffeId: id, parentId: id, selectors: [], dnsNames });
}

/** A member as it may stand in a role: a SPIFFE ID of `trustDomain` with a path, or one and `/*`. */
export function memberFault(member: string, trustDomain: string): string | null {
  const id = (member.endsWith("/*") ? member.slice(0, -2) : member) as SpiffeId;
  return trustDomainOf(id) === trustDomain && (pathOf(id) !== "" || member.endsWith("/*"))
    ? null
    : `\`${member}\` is no identity of \`${trustDomain}\``;
}
