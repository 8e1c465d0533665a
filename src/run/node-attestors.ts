/** The block `nodeAttestors` of the server's configuration: by what nodes may prove themselves, beside join tokens. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Cell } from "../core/base/cell.ts";
import { EveryhopError } from "../core/base/errors.ts";
import {
  boolean,
  integer,
  list,
  object,
  oneOf,
  optional,
  port,
  record,
  required,
  string,
} from "../core/base/validate.ts";
import { certificatesFromPem } from "../core/x509/pem.ts";
import { httpChallengeVerifier } from "../identity/attest/node/http-challenge/verify.ts";
import { type ClusterOptions, k8sPsatVerifier } from "../identity/attest/node/k8s-psat/verify.ts";
import type { NodeVerifier } from "../identity/attest/node/proof.ts";
import { sshpopVerifier } from "../identity/attest/node/sshpop/verify.ts";
import { x509popVerifier } from "../identity/attest/node/x509pop/verify.ts";
import { inClusterConfig, type KubeClient, kubeClient, kubeClientOf } from "../io/kube.ts";
import { kubeconfigAccess } from "../io/kubeconfig.ts";

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
      maxIntermediates: optional(integer(0, 16)),
      verifyClientIp: optional(boolean()),
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
      allowPrivateAddresses: optional(boolean()),
      /** For tests and labs. */
      allowLoopback: optional(boolean()),
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

/** The verifiers that a server is configured with. Errors: `file-missing`, `config-invalid`. */
export function makeVerifiers(config: NodeAttestorsConfig, own: Cell<readonly Uint8Array[]>): readonly NodeVerifier[] {
  const { x509pop, k8s_psat, sshpop, http_challenge } = config;
  return [
    ...(x509pop === undefined ? [] : [x509popVerifier({ ...x509pop, authorities: authoritiesOf(x509pop, own) })]),
    ...(k8s_psat === undefined ? [] : [k8sPsatVerifier(clusters(k8s_psat.clusters ?? {}))]),
    ...(sshpop === undefined ? [] : [sshpopVerifier({ ...sshpop, certAuthorities: sshAuthorities(sshpop) })]),
    ...(http_challenge === undefined ? [] : [httpChallengeVerifier(http_challenge)]),
  ];
}

function authoritiesOf(
  { mode, caBundleFiles }: NonNullable<NodeAttestorsConfig["x509pop"]>,
  own: Cell<readonly Uint8Array[]>,
): () => readonly Uint8Array[] {
  if (mode === "spiffe") {
    if (caBundleFiles !== undefined) {
      throw new EveryhopError("config-invalid", "x509pop: `caBundleFiles` has no place in mode `spiffe`");
    }
    return () => own.value;
  }
  if (caBundleFiles === undefined) {
    throw new EveryhopError("config-invalid", "x509pop: `caBundleFiles` is missing", {
      hint: "name the PEM files of the PKI that certifies your nodes, or set `mode: spiffe`",
    });
  }
  const authorities = caBundleFiles.flatMap((file) => certificatesFromPem(readText(file)));
  return () => authorities;
}

function clusters(
  given: Readonly<Record<string, ReturnType<typeof cluster.read>>>,
): Readonly<Record<string, ClusterOptions>> {
  const made: Record<string, ClusterOptions> = Object.create(null);
  for (const [name, one] of Object.entries(given)) {
    if (one !== undefined) {
      const { kubeconfig, ...rest } = one;
      made[name] = {
        ...rest,
        client: kubeconfig === undefined ? inCluster() : kubeClientOf(kubeconfigAccess(kubeconfig)),
      };
    }
  }
  return made;
}

/** A server outside of any cluster starts all the same; a node that comes is told what is missing. */
function inCluster(): KubeClient {
  const config = inClusterConfig(process.env);
  if (config !== null) {
    return kubeClient(config);
  }
  return kubeClientOf(async () => {
    throw new EveryhopError("unavailable", "the server runs in no Kubernetes cluster, and has no `kubeconfig`", {
      hint: "set `kubeconfig` of the cluster (`kube_config_file` in SPIRE's file)",
    });
  });
}

function sshAuthorities(given: NonNullable<NodeAttestorsConfig["sshpop"]>): readonly string[] {
  const lines = given.certAuthoritiesFile === undefined ? [] : readText(given.certAuthoritiesFile).split("\n");
  return [...(given.certAuthorities ?? []), ...lines.filter((line) => line.trim() !== "" && !line.startsWith("#"))];
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, {
      hint: "`nodeAttestors` names it",
      cause,
    });
  }
}
