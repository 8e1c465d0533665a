/** The keys of `when`. SOURCE: istio pilot/pkg/security/authz/model/{model,util}.go. */
export type ConditionAttribute =
  | { readonly kind: SimpleKey }
  /** `name` is lower case; null where the key only looks like one (`request.headersx[y]`) and Istio drops it later. */
  | { readonly kind: "header"; readonly name: string | null }
  | { readonly kind: "claim"; readonly path: readonly string[] | null }
  /** Envoy's dynamic metadata, of which there is none here: an attribute that is always absent. */
  | { readonly kind: "metadata" };

const SIMPLE_KEYS = [
  "source.ip",
  "remote.ip",
  "source.namespace",
  "source.serviceAccount",
  "source.principal",
  "source.trustDomain",
  "request.auth.principal",
  "request.auth.audiences",
  "request.auth.presenter",
  "destination.ip",
  "destination.port",
  "connection.sni",
] as const;
export type SimpleKey = (typeof SIMPLE_KEYS)[number];

const HEADER = "request.headers";
const CLAIM = "request.auth.claims";
const METADATA = "experimental.envoy.filters.";

/** What a key names; null where Istio knows no such key. */
export function conditionAttribute(key: string): ConditionAttribute | null {
  if ((SIMPLE_KEYS as readonly string[]).includes(key)) {
    return { kind: key as SimpleKey };
  }
  if (key.startsWith(HEADER)) {
    return { kind: "header", name: nameInBrackets(key.slice(HEADER.length))?.toLowerCase() ?? null };
  }
  if (key.startsWith(CLAIM)) {
    return { kind: "claim", path: nestedNames(key.slice(CLAIM.length)) };
  }
  return key.startsWith(METADATA) ? { kind: "metadata" } : null;
}

function nameInBrackets(text: string): string | null {
  return text.startsWith("[") && text.endsWith("]") ? text.slice(1, -1) : null;
}

/** `[a][b]` → a, b; what is not of that form is one name, whatever brackets it has inside. */
function nestedNames(text: string): readonly string[] | null {
  const names: string[] = [];
  let at = 0;
  while (at < text.length) {
    const close = text.indexOf("]", at);
    const open = text.indexOf("[", at + 1);
    if (text[at] !== "[" || close === -1 || (open !== -1 && open < close)) {
      const name = nameInBrackets(text);
      return name === null ? null : [name];
    }
    names.push(text.slice(at + 1, close));
    at = close + 1;
  }
  return names;
}
