/** The agent's `workloadAttestors`: what a configuration may say of each kind, and the attestors made of it. */
import { boolean, integer, object, optional, refined, type Shape, string } from "../core/base/validate.ts";
import type { WorkloadAttestor } from "../identity/attest/workload/attest.ts";
import { DOCKER_DEFAULTS, dockerAttestor } from "../identity/attest/workload/docker/docker.ts";
import { systemdAttestor } from "../identity/attest/workload/systemd/systemd.ts";
import { unixAttestor } from "../identity/attest/workload/unix/unix.ts";
import { systemClock } from "../io/clock.ts";

/** A unix socket, as `unix:///run/docker.sock` or a path. */
const socketPath: Shape<string> = refined(string({ what: "the path of a socket" }), (text, at) => {
  const path = text.replace(/^unix:(\/\/)?/, "");
  return path.startsWith("/") ? path : at.fault(`\`${text}\` is not an absolute path`);
});

const userSocketPath: Shape<string> = refined(socketPath, (path, at) =>
  path.split("%d").length === 2 ? path : at.fault(`\`${path}\` needs one \`%d\`, for the user's id`),
);

const DOCKER = object({
  socket: optional(socketPath),
  podmanSocket: optional(socketPath),
  rootlessPodmanSocket: optional(userSocketPath),
  apiVersion: optional(string({ pattern: /^\d+\.\d+$/, what: "a version such as `1.44`" })),
});

export const WORKLOAD_ATTESTORS = object({
  unix: optional(object({ discoverWorkloadPath: optional(boolean()), workloadSizeLimit: optional(integer(-1)) })),
  systemd: optional(object({})),
  docker: optional(DOCKER),
});

export type WorkloadAttestorsConfig = typeof WORKLOAD_ATTESTORS extends Shape<infer T> ? T : never;

/** What an agent does whose configuration says nothing of it. */
export const DEFAULT_WORKLOAD_ATTESTORS: WorkloadAttestorsConfig = { unix: {} };

export function makeWorkloadAttestors(config: WorkloadAttestorsConfig): WorkloadAttestor[] {
  const { unix, systemd, docker } = config;
  return [
    ...(unix === undefined ? [] : [unixAttestor(() => systemClock.now(), unix)]),
    ...(systemd === undefined ? [] : [systemdAttestor()]),
    ...(docker === undefined ? [] : [dockerAttestor({ ...DOCKER_DEFAULTS, ...docker })]),
  ];
}
