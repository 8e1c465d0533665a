import type { Certificate } from "./certificate.ts";
import type { NameSubtrees } from "./extensions.ts";

/**
 * Why the names in `path` (leaf first, authority last) break a name constraint of a CA above them; null where none does.
 * URI and DNS names are evaluated; a name of another kind that is constrained at all is refused. SPEC: RFC 5280 §4.2.1.10.
 */
export function nameConstraintFault(path: readonly Certificate[]): string | null {
  for (const [index, authority] of path.entries()) {
    const constraints = authority.nameConstraints;
    if (constraints === null) {
      continue;
    }
    for (const below of path.slice(0, index)) {
      const fault =
        unevaluated(below, [...(constraints.permitted?.otherTags ?? []), ...(constraints.excluded?.otherTags ?? [])]) ??
        notPermitted(below, constraints.permitted) ??
        excluded(below, constraints.excluded);
      if (fault !== null) {
        return fault;
      }
    }
  }
  return null;
}

function unevaluated(certificate: Certificate, tags: readonly number[]): string | null {
  const present: Readonly<Record<number, number>> = {
    129: certificate.names?.emails.length ?? 0,
    135: certificate.names?.ipAddresses.length ?? 0,
    164: certificate.subject.attributes.length,
  };
  const hit = tags.find((tag) => (present[tag] ?? certificate.names?.others ?? 0) > 0);
  return hit === undefined ? null : "a name is constrained by a rule that is not supported";
}

function notPermitted(certificate: Certificate, permitted: NameSubtrees | null): string | null {
  const { uris = [], dnsNames = [] } = certificate.names ?? {};
  const outside =
    (permitted?.uris.length ? uris.find((uri) => !permitted.uris.some((rule) => uriMatches(uri, rule))) : undefined) ??
    (permitted?.dnsNames.length
      ? dnsNames.find((name) => !permitted.dnsNames.some((rule) => dnsMatches(name, rule)))
      : undefined);
  return outside === undefined ? null : `\`${outside}\` is outside what its CA may certify`;
}

function excluded(certificate: Certificate, rules: NameSubtrees | null): string | null {
  const { uris = [], dnsNames = [] } = certificate.names ?? {};
  const inside =
    uris.find((uri) => rules?.uris.some((rule) => uriMatches(uri, rule))) ??
    dnsNames.find((name) => rules?.dnsNames.some((rule) => dnsMatches(name, rule)));
  return inside === undefined ? null : `\`${inside}\` is excluded from what its CA may certify`;
}

/** A rule is a host, or with a leading dot every host below it. A URI without a host matches no rule. */
function uriMatches(uri: string, rule: string): boolean {
  const host = /^[a-z][a-z0-9+.-]*:\/\/(?:[^@/?#]*@)?([^:/?#]+)/i.exec(uri)?.[1]?.toLowerCase();
  const want = rule.toLowerCase();
  return host !== undefined && (want.startsWith(".") ? host.endsWith(want) && host !== want : host === want);
}

/** A DNS rule covers the name and every name below it; an empty rule covers all. */
function dnsMatches(name: string, rule: string): boolean {
  const want = rule.toLowerCase().replace(/^\./, "");
  const have = name.toLowerCase();
  return want === "" || have === want || have.endsWith(`.${want}`);
}
