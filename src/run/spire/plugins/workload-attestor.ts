/** WorkloadAttestor: what the agent finds out about a process. */
import type { PluginType } from "../plugins.ts";
import { block, differs, flag, type Rule, text, to, whole } from "../translation.ts";

/** Each plugin is there by being named, also with no keys. */
const named =
  (kind: string, keys: Rule): Rule =>
  (value, at) => {
    at.set(["workloadAttestors", kind], {});
    keys(value, at);
  };

const sigstore = differs("signatures of images are not looked at");

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
    docker: named(
      "docker",
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
      }),
    ),
  },
  missing: { k8s: "warning", slurm: "warning", windows: "warning" },
  hint: "a workload gets no selectors of that type, and no identity that needs one",
};
