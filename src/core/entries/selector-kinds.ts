/** Which selectors there are: by type, the kinds of fact that its attestor states. Spellings are SPIRE's where SPIRE has them. */
import { type Selector, selectorType, selectorValue } from "./selector.ts";

const words = (text: string): readonly string[] => text.split(" ");

/** Of workloads. */
export const WORKLOAD_KINDS: Readonly<Record<string, readonly string[]>> = {
  unix: words(
    "uid user gid group supplementary_gid supplementary_group path sha256 script script:sha256 " +
      "parent:path parent:sha256 parent:process process",
  ),
  systemd: words("id fragment_path"),
  docker: words("label env image_id image_config_digest"),
  containerd: words("label image image_digest namespace"),
  k8s: words(
    "ns ns-label sa node-name pod-uid pod-name pod-label pod-owner pod-owner-uid pod-image pod-image-count pod-init-image " +
      "pod-init-image-count container-name container-image uid resource plural group version apiVersion kind name namespace " +
      "key label owner-key owner-uid controller-key controller-uid",
  ),
};

/** Of nodes: an entry that asks a workload for one of these can match none. */
export const NODE_TYPES = words(
  "spiffe_id x509pop k8s_psat sshpop http_challenge tpm_devid aws_iid azure_imds azure_msi gcp_iit",
);

/** Kinds whose value begins with a key: `label:KEY:VALUE`, `env:NAME=VALUE`, `pod-owner:KIND:NAME`. */
const KEYED: Readonly<Record<string, string>> = {
  "docker:label": ":",
  "docker:env": "=",
  "containerd:label": ":",
  "k8s:ns-label": ":",
  "k8s:pod-label": ":",
  "k8s:pod-owner": ":",
  "k8s:pod-owner-uid": ":",
  "k8s:label": ":",
};

export interface SelectorParts {
  readonly type: string;
  /** As `uid`, `script:sha256` or `pod-label`; where the type is unknown, what stands before the next colon. */
  readonly kind: string;
  /** Of a kind that has keys, else empty. */
  readonly key: string;
  readonly value: string;
}

export function selectorParts(selector: Selector): SelectorParts {
  const type = selectorType(selector);
  const rest = selectorValue(selector);
  const known = (Object.hasOwn(WORKLOAD_KINDS, type) ? WORKLOAD_KINDS[type] : undefined) ?? [];
  const kind =
    known.filter((one) => rest.startsWith(`${one}:`)).sort((a, b) => b.length - a.length)[0] ??
    rest.slice(0, Math.max(0, rest.indexOf(":")));
  const value = kind === "" ? rest : rest.slice(kind.length + 1);
  const separator = KEYED[`${type}:${kind}`];
  const cut = separator === undefined ? -1 : value.indexOf(separator);
  return cut < 0
    ? { type, kind, key: "", value }
    : { type, kind, key: value.slice(0, cut), value: value.slice(cut + 1) };
}

/** What two selectors have in common that differ in their value alone. */
export function subjectOf({ type, kind, key }: SelectorParts): string {
  return `${type}:${kind}:${key}`;
}

/** For a log: the values of a container's environment may be secrets. */
export function withoutSecrets(selector: Selector): string {
  return selector.startsWith("docker:env:") ? selector.replace(/=.*/s, "=…") : selector;
}
