/**
 * Trust-domain aliases in principals and trust domains. SOURCE: istio pilot/pkg/security/trustdomain/{bundle,util}.go.
 */

/** In a five-segment principal this means the mesh's own trust domain and its aliases. */
const LOCAL = "cluster.local";

/** `domains`: the mesh's own trust domain first, then its aliases. */
export function expandPrincipals(principals: readonly string[], domains: readonly string[]): readonly string[] {
  return principals.flatMap((principal) => expandPrincipal(principal, domains));
}

function expandPrincipal(principal: string, domains: readonly string[]): readonly string[] {
  const parts = principal.split("/");
  const domain = parts[0] ?? "";
  if (parts.length !== 5 || domain === "*" || !(domain === LOCAL || isListed(domain, domains))) {
    return [principal];
  }
  const rest = parts.slice(1).join("/");
  const expanded = domains.map((other) => (isSuffixOf(other, domain) ? principal : `${other}/${rest}`));
  return [...new Set(expanded)];
}

export function expandTrustDomains(values: readonly string[], domains: readonly string[]): readonly string[] {
  return [...new Set(values.flatMap((value) => (domains.includes(value) ? domains : [value])))];
}

/** Either side may be the pattern. */
function isListed(domain: string, domains: readonly string[]): boolean {
  return domains.some(
    (other) =>
      other === domain ||
      other === "*" ||
      isPrefixOf(domain, other) ||
      isPrefixOf(other, domain) ||
      isSuffixOf(domain, other) ||
      isSuffixOf(other, domain),
  );
}

const isPrefixOf = (text: string, pattern: string): boolean =>
  pattern.endsWith("*") && text.startsWith(pattern.slice(0, -1));

const isSuffixOf = (text: string, pattern: string): boolean =>
  pattern.startsWith("*") && text.endsWith(pattern.slice(1));
