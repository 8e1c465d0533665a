/**
 * Matching a peer's identity (a SPIFFE ID without `spiffe://`). Istio makes regular expressions of these; here they are
 * plain string searches, so that no pattern can be made to backtrack. A line feed is what `.` does not match.
 * SOURCE: istio pilot/pkg/security/authz/model/generator.go.
 */

/** `/ns/<namespace>/` in the identity; every `*` is a wildcard that runs over slashes. */
export function namespaceMatcher(namespace: string): (principal: string) => boolean {
  const pieces = `/ns/${namespace}/`.split("*");
  return (principal) => {
    // The slashes of `spiffe://` count: a trust domain may be called `ns`.
    const identity = `//${principal}`;
    let at = 0;
    for (const piece of pieces) {
      const found = identity.indexOf(piece, at);
      if (found === -1) {
        return false;
      }
      at = found + piece.length;
    }
    return !principal.includes("\n");
  };
}

/** Namespaces of which one must match; those without wildcard and slash are looked up, however many there are. */
export function namespacesMatcher(values: readonly string[]): (principal: string) => boolean {
  const plain = new Set(values.filter(isOneSegment));
  const others = values.filter((value) => !isOneSegment(value)).map(namespaceMatcher);
  return (principal) =>
    (plain.size > 0 && !principal.includes("\n") && segmentsAfter(principal, "ns").some((name) => plain.has(name))) ||
    others.some((matches) => matches(principal));
}

/** Neither a wildcard nor more than one segment. */
export const isOneSegment = (value: string): boolean => !value.includes("*") && !value.includes("/");

/** Every segment of the identity that follows a segment `name` and is itself followed by a slash. */
export function segmentsAfter(principal: string, name: string): readonly string[] {
  const segments = `/${principal}`.split("/");
  return segments.filter((_, at) => at > 1 && segments[at - 1] === name && at < segments.length - 1);
}

/** `spiffe://.+/ns/NS/(.+/|)sa/SA(/.+)?`; a bare account is one of the policy's namespace. */
export function serviceAccountMatcher(value: string, policyNamespace: string): (principal: string) => boolean {
  const slash = value.indexOf("/");
  const namespace = slash === -1 ? policyNamespace : value.slice(0, slash);
  const account = `sa/${slash === -1 ? value : value.slice(slash + 1)}`;
  const marker = `/ns/${namespace}/`;
  return (principal) => {
    // The first place leaves most behind it, so no later one can match where it does not.
    const found = principal.indexOf(marker, 1);
    if (found === -1 || principal.includes("\n")) {
      return false;
    }
    const start = found + marker.length;
    for (let at = start; ; ) {
      const next = principal.indexOf(account, at);
      if (next === -1) {
        return false;
      }
      const opens = next === start || (principal[next - 1] === "/" && next - 1 > start);
      const end = next + account.length;
      if (opens && (end === principal.length || (principal[end] === "/" && end + 1 < principal.length))) {
        return true;
      }
      at = next + 1;
    }
  };
}

/** The authority of the identity; a wildcard in it stops at the slash. */
export function trustDomainMatcher(value: string): (principal: string) => boolean {
  if (value === "*") {
    return () => true;
  }
  const star = value.indexOf("*");
  if (star === -1) {
    const prefix = `${value}/`;
    return (principal) => principal.startsWith(prefix);
  }
  const [head, tail] = [value.slice(0, star), value.slice(star + 1)];
  return (principal) => {
    // `tail` may have slashes of its own (a condition's value may): the wildcard alone must not cross one.
    const wildcardEnd = principal.indexOf("/", head.length);
    if (!principal.startsWith(head) || principal.includes("\n")) {
      return false;
    }
    const limit = wildcardEnd === -1 ? principal.length : wildcardEnd;
    for (let at = head.length; at <= limit; at++) {
      if (principal.startsWith(`${tail}/`, at)) {
        return true;
      }
    }
    return false;
  };
}

/** Trust domains of which one must match; exact ones are looked up, however many there are. */
export function trustDomainsMatcher(values: readonly string[]): (principal: string) => boolean {
  const exact = new Set(values.filter(isOneSegment));
  const others = values.filter((value) => !isOneSegment(value)).map(trustDomainMatcher);
  return (principal) => {
    const slash = principal.indexOf("/");
    return (
      (exact.size > 0 && slash !== -1 && exact.has(principal.slice(0, slash))) ||
      others.some((matches) => matches(principal))
    );
  };
}
