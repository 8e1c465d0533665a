/** The document of `everyhop status`. */
import type { IdentityStatus, PolicyStatus, ProxyStatus, StatusDocument } from "../core/api/admin.ts";
import { snapshotName } from "../core/api/snapshot.ts";
import type { Issue } from "../core/base/errors.ts";
import type { Resource } from "../core/policy/resources.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { isOverdue, type X509Svid } from "../core/spiffe/svid.ts";
import type { IssuedIdentity, KilledIdentity } from "./identities.ts";
import type { Loop } from "./loop.ts";
import { policyName } from "./policies.ts";
import type { Push } from "./push.ts";
import type { Reports } from "./reports.ts";
import { serviceId } from "./service.ts";

export interface StatusSources {
  readonly loop: Loop;
  readonly push: Push;
  readonly reports: Reports;
  readonly issued: readonly IssuedIdentity[];
  readonly kills: readonly KilledIdentity[];
  readonly server: X509Svid;
  readonly now: number;
  /** Key sets that could not be read, by URL, with the reason. */
  readonly keyFaults: ReadonlyMap<string, string>;
  readonly problems: readonly Issue[];
}

const DENIALS_SHOWN = 50;

export function statusDocument(sources: StatusSources): StatusDocument {
  const { loop, push, reports, kills } = sources;
  const { version, trustDomain } = push.world;
  return {
    version,
    trustDomain,
    identities: identities(sources),
    proxies: proxies(push),
    policies: loop.world.policies.map((policy) => policyStatus(policy, loop, sources.keyFaults)),
    problems: sources.problems,
    denials: reports.denials.latest(DENIALS_SHOWN),
    dryRuns: reports.dryRuns(),
    kills: kills.map(({ spiffeId, since }) => ({ spiffeId, since: time(since) })),
  };
}

export function proxies(push: Push): ProxyStatus[] {
  const { services, trustDomain } = push.world;
  return services.map((service) => {
    const { inForce, state, error } = push.stateOf(snapshotName(service));
    return { service: service.name, spiffeId: serviceId(service, trustDomain), version: inForce, state, error };
  });
}

/** What sidecars serve with now, as they say, and else the newest that was issued; what has expired is not listed. */
function identities({ push, reports, issued, server, now }: StatusSources): IdentityStatus[] {
  const { services, trustDomain } = push.world;
  const listed = new Map<SpiffeId, IdentityStatus>();
  const add = (spiffeId: SpiffeId, svid: NonNullable<IssuedIdentity["svid"]>, service: string | null): void => {
    if (svid.notAfter > now && !listed.has(spiffeId)) {
      const { serial, notBefore, notAfter } = svid;
      const overdue = isOverdue(notBefore, notAfter, now);
      const dates = { notBefore: time(notBefore), notAfter: time(notAfter) };
      listed.set(spiffeId, { spiffeId, serial, ...dates, overdue, service });
    }
  };
  const serviceOf = new Map(services.map((service) => [serviceId(service, trustDomain), service.name]));
  for (const service of services) {
    const reported = reports.identityOf(snapshotName(service));
    if (reported !== null) {
      add(reported.spiffeId, reported, service.name);
    }
  }
  for (const { spiffeId, svid } of issued) {
    if (svid !== null) {
      add(spiffeId, svid, serviceOf.get(spiffeId) ?? null);
    }
  }
  add(server.id, server, null);
  return [...listed.values()];
}

function policyStatus(policy: Resource, loop: Loop, keyFaults: StatusSources["keyFaults"]): PolicyStatus {
  const { kind, place } = policy;
  const findings = [...findingsOf(policy, loop), ...keyFindings(policy, keyFaults)];
  return { name: policyName(policy), kind, source: `${place.file}:${place.line}`, findings };
}

/** Key sets that the policy names and that cannot be read now. */
function keyFindings(policy: Resource, keyFaults: StatusSources["keyFaults"]): Issue[] {
  const rules = policy.kind === "RequestAuthentication" ? policy.jwtRules : [];
  return rules.flatMap(({ jwksUri }, index): Issue[] => {
    const fault = jwksUri === null ? undefined : keyFaults.get(jwksUri);
    return fault === undefined
      ? []
      : [
          {
            code: "key-set-unread",
            severity: "warning",
            message: `the key set cannot be read: ${fault}`,
            ...policy.place,
            path: `spec.jwtRules[${index}].jwksUri`,
            hint: "tokens are judged by the set that was read last; where none was, they are refused",
          },
        ];
  });
}

/** A finding belongs to the resource that begins last before it in its file. */
function findingsOf(policy: Resource, loop: Loop): Issue[] {
  const { file, line = 1 } = policy.place;
  const starts = loop.world.policies.filter(({ place }) => place.file === file).map(({ place }) => place.line ?? 1);
  const next = Math.min(...starts.filter((start) => start > line));
  return loop.findings.filter((issue) => {
    const at = issue.line ?? 1;
    return issue.file === file && at >= line && at < next;
  });
}

export function time(ms: number): string {
  return new Date(ms).toISOString();
}
