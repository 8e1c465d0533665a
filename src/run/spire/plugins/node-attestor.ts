/** NodeAttestor, both halves: what the server accepts, and how the agent proves its node. */
import type { PluginType } from "../plugins.ts";
import { block, blocks, differs, flag, granted, type Rule, text, texts, to, whole } from "../translation.ts";

const MISSING = {
  aws_iid: "warning",
  azure_imds: "warning",
  azure_msi: "warning",
  gcp_iit: "warning",
  tpm_devid: "warning",
} as const;

const HINT = "there are join_token, x509pop, k8s_psat, sshpop and http_challenge";

/** Each plugin is there by being named, also with no keys. */
const named =
  (name: string, keys: Rule): Rule =>
  (value, at) => {
    at.set(["nodeAttestors", name], {});
    keys(value, at);
  };

const cluster = (name: string): Rule => {
  const path = ["nodeAttestors", "k8s_psat", "clusters", name];
  return block({
    service_account_allow_list: to([...path, "serviceAccounts"], texts),
    audience: to([...path, "audience"], texts),
    kube_config_file: to([...path, "kubeconfig"], text),
    allowed_node_label_keys: to([...path, "nodeLabels"], texts),
    allowed_pod_label_keys: to([...path, "podLabels"], texts),
    use_pod_uid_for_agent_id: to([...path, "podUidInAgentId"], flag),
  });
};

const clusters: Rule = (value, at) => {
  for (const [given, here] of blocks(value, at)) {
    for (const [name, body] of Object.entries(given)) {
      here.into(name).set(["nodeAttestors", "k8s_psat", "clusters", name], {});
      cluster(name)(body, here.into(name));
    }
  }
};

const x509pop = ["nodeAttestors", "x509pop"];
const sshpop = ["nodeAttestors", "sshpop"];
const http = ["nodeAttestors", "http_challenge"];

export const SERVER_NODE_ATTESTOR: PluginType = {
  plugins: {
    join_token: granted,
    x509pop: named(
      "x509pop",
      block({
        mode: to([...x509pop, "mode"], text),
        spiffe_prefix: to([...x509pop, "svidPrefix"], text),
        ca_bundle_path: to([...x509pop, "caBundleFiles"], texts),
        ca_bundle_paths: to([...x509pop, "caBundleFiles"], texts),
        agent_path_template: to([...x509pop, "agentPathTemplate"], text),
        max_intermediates: to([...x509pop, "maxIntermediates"], whole),
        max_rsa_key_size: differs("an RSA key has at most 8192 bits, as SPIRE's default"),
        verify_client_ip: to([...x509pop, "verifyClientIp"], flag),
      }),
    ),
    k8s_psat: named("k8s_psat", block({ clusters })),
    sshpop: named(
      "sshpop",
      block({
        cert_authorities: to([...sshpop, "certAuthorities"], texts),
        cert_authorities_path: to([...sshpop, "certAuthoritiesFile"], text),
        canonical_domain: to([...sshpop, "canonicalDomain"], text),
        agent_path_template: to([...sshpop, "agentPathTemplate"], text),
      }),
    ),
    http_challenge: named(
      "http_challenge",
      block({
        allowed_dns_patterns: to([...http, "allowedDnsPatterns"], texts),
        required_port: to([...http, "requiredPort"], whole),
        allow_non_root_ports: to([...http, "allowNonRootPorts"], flag),
        tofu: to([...http, "tofu"], flag),
      }),
    ),
  },
  missing: MISSING,
  hint: HINT,
};

const proof =
  (kind: string, keys: Rule): Rule =>
  (value, at) => {
    at.set(["nodeAttestor", "kind"], kind);
    keys(value, at);
  };

export const AGENT_NODE_ATTESTOR: PluginType = {
  plugins: {
    join_token: granted,
    x509pop: proof(
      "x509pop",
      block({
        private_key_path: to(["nodeAttestor", "privateKeyFile"], text),
        certificate_path: to(["nodeAttestor", "certificateFile"], text),
        intermediates_path: to(["nodeAttestor", "intermediatesFile"], text),
        workload_api_socket: differs("give the certificate as a file"),
      }),
    ),
    k8s_psat: proof(
      "k8s_psat",
      block({
        cluster: to(["nodeAttestor", "cluster"], text),
        token_path: to(["nodeAttestor", "tokenFile"], text),
      }),
    ),
    sshpop: proof(
      "sshpop",
      block({
        host_key_path: to(["nodeAttestor", "hostKeyFile"], text),
        host_cert_path: to(["nodeAttestor", "hostCertificateFile"], text),
      }),
    ),
    http_challenge: proof(
      "http_challenge",
      block({
        hostname: to(["nodeAttestor", "hostname"], text),
        agentname: to(["nodeAttestor", "agentName"], text),
        port: to(["nodeAttestor", "port"], whole),
        advertised_port: to(["nodeAttestor", "advertisedPort"], whole),
      }),
    ),
  },
  missing: { aws_iid: "error", azure_imds: "error", azure_msi: "error", gcp_iit: "error", tpm_devid: "error" },
  hint: HINT,
};
