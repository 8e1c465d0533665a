/** `roles:` of the server's configuration. */
import { list, object, oneOf, optional, record, refined, required, string } from "../core/base/validate.ts";
import { memberFault, RIGHTS, type Right, type Role } from "../core/entries/role.ts";
import { type SpiffeId, spiffeIdFault, type TrustDomain, trustDomainOf } from "../core/spiffe/id.ts";

const spiffeId = refined(string({ what: "a SPIFFE ID" }), (text, at) => {
  const fault = spiffeIdFault(text);
  return fault === null ? (text as SpiffeId) : at.fault(`\`${text}\` is not a SPIFFE ID: ${fault}`);
});

/** A SPIFFE ID, or one and `/*`. */
const member = refined(string({ what: "a SPIFFE ID, or one with `/*`" }), (text, at) => {
  const fault = spiffeIdFault(text.replace(/\/\*$/, ""));
  return fault === null ? text : at.fault(`\`${text}\` is not a SPIFFE ID: ${fault}`);
});

const role = object({
  members: required(list(member, { min: 1 })),
  may: required(list(oneOf("*", ...RIGHTS), { min: 1 })),
  under: optional(list(spiffeId, { min: 1 })),
  parents: optional(list(spiffeId, { min: 1 })),
  dnsNames: optional(list(string({ pattern: /^(\*\.)?[a-z0-9.-]+$/, what: "a DNS name, or `*.` and a suffix" }))),
});

const name = { pattern: /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, what: "a name (lower-case letters, digits, `-`)" };

export const rolesShape = record(role, name);

export function rolesOf(given: NonNullable<ReturnType<typeof rolesShape.read>>): readonly Role[] {
  return Object.entries(given).map(([name, { members, may, under, parents, dnsNames }]) => ({
    name,
    members,
    may: may.includes("*") ? RIGHTS : (may as readonly Right[]),
    under: under ?? null,
    parents: parents ?? null,
    dnsNames: dnsNames ?? [],
  }));
}

/** What a limited role could not be limited in: the whole mesh is shown or changed by it. */
const OVER_EVERYTHING: readonly Right[] = RIGHTS.filter((right) => /^(bundles|authorities|status|audit):/.test(right));

/** What the shapes cannot see: the trust domain, and rights that a limited role cannot have. */
export function* roleFaults(
  roles: readonly Role[],
  trustDomain: TrustDomain,
): Generator<{ readonly path: readonly (string | number)[]; readonly message: string }> {
  for (const { name, members, may, under, parents } of roles) {
    for (const [index, one] of members.entries()) {
      const fault = memberFault(one, trustDomain);
      if (fault !== null) {
        yield { path: [name, "members", index], message: fault };
      }
    }
    for (const [field, ids] of Object.entries({ under, parents })) {
      const foreign = ids?.findIndex((id) => trustDomainOf(id) !== trustDomain) ?? -1;
      if (foreign >= 0) {
        yield { path: [name, field, foreign], message: `\`${ids?.[foreign]}\` is not in \`${trustDomain}\`` };
      }
    }
    const whole = under === null ? undefined : may.find((right) => OVER_EVERYTHING.includes(right));
    if (whole !== undefined) {
      const message = `\`${whole}\` is a right over the whole trust domain; a role with \`under\` cannot have it`;
      yield { path: [name, "may"], message };
    }
  }
}
