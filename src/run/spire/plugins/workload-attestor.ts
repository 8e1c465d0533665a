/** WorkloadAttestor: what the agent finds out about a process. */
import type { PluginType } from "../plugins.ts";
import {
  block,
  blocks,
  differs,
  duration,
  flag,
  granted,
  type Rule,
  text,
  to,
  valueAt,
  whole,
} from "../translation.ts";

/** Each plugin is there by being named, also with no keys. */
const named =
  (kind: string, keys: Rule): Rule =>
  (value, at) => {
    at.set(["workloadAttestors", kind], {});
    keys(value, at);
  };

const ROOTLESS = 'to have them all the same: `podman_socket_path_template = "unix:///run/user/%d/podman/podman.sock"`';

const sigstore = differs("signatures of images are not looked at");

const k8s = (field: string): readonly [string, string, string] => ["workloadAttestors", "k8s", field];

/** SPIRE takes 0 for "not given". */
const port =
  (field: string): Rule =>
  (value, at) => {
    const given = whole(value, at);
    if (given !== undefined && given !== 0) {
      at.set(k8s(field), given);
    }
  };

const K8S = block({
  kubelet_read_only_port: port("kubeletReadOnlyPort"),
  kubelet_secure_port: port("kubeletSecurePort"),
  kubelet_ca_path: to(k8s("kubeletCaFile"), text),
  skip_kubelet_verification: to(k8s("skipKubeletVerification"), flag),
  token_path: to(k8s("tokenFile"), text),
  certificate_path: to(k8s("certificateFile"), text),
  private_key_path: to(k8s("privateKeyFile"), text),
  use_anonymous_authentication: to(k8s("useAnonymousAuthentication"), flag),
  node_name: to(k8s("nodeName"), text),
  node_name_env: to(k8s("nodeNameEnv"), text),
  max_poll_attempts: to(k8s("maxPollAttempts"), whole),
  poll_retry_interval: to(k8s("pollRetryInterval"), duration),
  disable_container_selectors: to(k8s("disableContainerSelectors"), flag),
  enable_namespace_labels: to(k8s("enableNamespaceLabels"), flag),
  disable_kubelet_client: differs("processes are looked up at the kubelet"),
  // Token and certificates are read for each call.
  reload_interval: granted,
  use_new_container_locator: (value, at) => void flag(value, at),
  verbose_container_locator_logs: (value, at) => void flag(value, at),
  sigstore,
  experimental: block({
    sigstore,
    api_server: granted,
    broker: block({
      access_policy: to(["workloadAttestors", "k8s", "broker", "accessPolicy"], text),
      brokers: (value, at) => {
        const brokers = blocks(value, at).map(([given]) => ({
          id: given.id,
          ...(given.pod_reference_scope === undefined
            ? {}
            : { podReferenceScope: String(given.pod_reference_scope).replace("_", "-") }),
        }));
        at.set(["workloadAttestors", "k8s", "broker", "brokers"], brokers);
      },
    }),
  }),
});

export const WORKLOAD_ATTESTOR: PluginType = {
  plugins: {
    unix: named(
      "unix",
      block({
        discover_workload_path: to(["workloadAttestors", "unix", "discoverWorkloadPath"], flag),
        workload_size_limit: to(["workloadAttestors", "unix", "workloadSizeLimit"], whole),
      }),
    ),
    systemd: named("systemd", block({})),
    docker: named("docker", (value, at) => {
      if (valueAt(value, at, "podman_socket_path_template") === null) {
        at.info("containers of rootless Podman get no `docker` selectors: their user chooses them", ROOTLESS);
      }
      block({
        docker_socket_path: to(["workloadAttestors", "docker", "socket"], text),
        docker_version: to(["workloadAttestors", "docker", "apiVersion"], text),
        podman_socket_path: to(["workloadAttestors", "docker", "podmanSocket"], text),
        podman_socket_path_template: to(["workloadAttestors", "docker", "rootlessPodmanSocket"], text),
        use_new_container_locator: (value, at) => void flag(value, at),
        verbose_container_locator_logs: (value, at) => void flag(value, at),
        container_id_cgroup_matchers: differs("a container is found by its cgroup, whatever its name"),
        sigstore,
        experimental: block({ sigstore }),
        docker_host: differs("named pipes are Windows's"),
      })(value, at);
    }),
    k8s: named("k8s", K8S),
  },
  missing: { slurm: "warning", windows: "warning" },
  hint: "a workload gets no selectors of that type, and no identity that needs one",
};
