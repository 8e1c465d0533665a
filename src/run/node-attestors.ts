/** The block `nodeAttestors` of the server's configuration: by what nodes may prove themselves, beside join tokens. */
import { resolve } from "node:path";
import { boolean, list, object, oneOf, optional, port, record, required, string } from "../core/base/validate.ts";

const path = string({ what: "a path" });

const cluster = object({
  serviceAccounts: required(list(string({ pattern: /^[^:\s]+:[^:\s]+$/, what: "`namespace:name`" }), { min: 1 })),
  audience: optional(list(string())),
  kubeconfig: optional(path),
  nodeLabels: optional(list(string())),
  podLabels: optional(list(string())),
  podUidInAgentId: optional(boolean()),
});

export const nodeAttestorsShape = object({
  x509pop: optional(
    object({
      mode: optional(oneOf("external_pki", "spiffe")),
      svidPrefix: optional(string({ what: "a path" })),
      caBundleFiles: optional(list(path, { min: 1 })),
      agentPathTemplate: optional(string()),
    }),
  ),
  k8s_psat: optional(
    object({ clusters: optional(record(cluster, { pattern: /^[A-Za-z0-9._-]+$/, what: "the name of a cluster" })) }),
  ),
  sshpop: optional(
    object({
      certAuthorities: optional(list(string({ what: "a public key, as in authorized_keys" }))),
      certAuthoritiesFile: optional(path),
      canonicalDomain: optional(string({ what: "a domain" })),
      agentPathTemplate: optional(string()),
    }),
  ),
  http_challenge: optional(
    object({
      allowedDnsPatterns: optional(list(string({ what: "a regular expression" }))),
      requiredPort: optional(port()),
      allowNonRootPorts: optional(boolean()),
      tofu: optional(boolean()),
      /** For tests and labs: nodes on loopback and private networks are asked too. */
      allowPrivateAddresses: optional(boolean()),
    }),
  ),
});

export type NodeAttestorsConfig = NonNullable<ReturnType<typeof nodeAttestorsShape.read>>;

/** With absolute paths. */
export function nodeAttestorsConfig(given: NodeAttestorsConfig | undefined, dir: string): NodeAttestorsConfig {
  const { x509pop, k8s_psat, sshpop, ...others } = given ?? {};
  const at = (file: string) => resolve(dir, file);
  return {
    ...others,
    ...(x509pop === undefined
      ? {}
      : {
          x509pop: {
            ...x509pop,
            ...(x509pop.caBundleFiles === undefined ? {} : { caBundleFiles: x509pop.caBundleFiles.map(at) }),
          },
        }),
    ...(k8s_psat === undefined
      ? {}
      : {
          k8s_psat: {
            clusters: Object.fromEntries(
              Object.entries(k8s_psat.clusters ?? {}).map(([name, { kubeconfig, ...one }]) => [
                name,
                kubeconfig === undefined ? one : { ...one, kubeconfig: at(kubeconfig) },
              ]),
            ),
          },
        }),
    ...(sshpop === undefined
      ? {}
      : {
          sshpop: {
            ...sshpop,
            ...(sshpop.certAuthoritiesFile === undefined
              ? {}
              : { certAuthoritiesFile: at(sshpop.certAuthoritiesFile) }),
          },
        }),
  };
}
