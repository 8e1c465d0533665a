/**
 * Selectors of a container of Docker or Podman: `docker:label:KEY:VALUE`, `docker:env:NAME=VALUE`, `docker:image_id:NAME`,
 * `docker:image_config_digest:sha256:HEX`. The container is found by the process's control group, what it is by the engine's API.
 *
 * Rootless Podman is a user's own program with the user's own socket: what it says of a container is what that user says. It is
 * asked only where the configuration names its socket.
 */
import { EveryhopError } from "../../../../core/base/errors.ts";
import { parseCgroups, processCgroupText } from "../../../../io/cgroup.ts";
import { type ApiEndpoint, callApi } from "../../../../io/http-client.ts";
import type { WorkloadAttestor } from "../attest.ts";
import { type Container, findContainer } from "../container.ts";
import { limitAtOnce } from "../limit.ts";
import { containerSelectors, readContainer, readImageDigest } from "./engine.ts";

export interface DockerOptions {
  /** Paths of sockets. */
  readonly socket: string;
  readonly podmanSocket: string;
  /** Of rootless Podman, `%d` for the user's id; null: not asked. */
  readonly rootlessPodmanSocket: string | null;
  /** As `1.44`; null: the engine's own. */
  readonly apiVersion: string | null;
  readonly timeoutMs?: number;
  /** The agent's own control groups; default: as the kernel says. */
  readonly ownCgroups?: () => string;
}

export const DOCKER_DEFAULTS = {
  socket: "/var/run/docker.sock",
  podmanSocket: "/run/podman/podman.sock",
  rootlessPodmanSocket: null,
  apiVersion: null,
} as const satisfies DockerOptions;

type UnixEndpoint = Extract<ApiEndpoint, { kind: "unix" }>;

const TIMEOUT_MS = 5_000;
const MAX_ANSWER_BYTES = 4 << 20;
const MAX_AT_ONCE = 16;

export function dockerAttestor(options: DockerOptions): WorkloadAttestor {
  const { ownCgroups = () => processCgroupText("self") } = options;
  const limited = limitAtOnce(MAX_AT_ONCE);
  return {
    kind: "docker",
    async attest({ cgroups }, needed) {
      const container = findContainer(parseCgroups(cgroups), parseCgroups(ownCgroups()));
      return container === null ? [] : limited(() => inspect(options, container, needed));
    },
  };
}

async function inspect(options: DockerOptions, container: Container, needed: (prefix: string) => boolean) {
  const endpoint = engineFor(options, container);
  if (endpoint === null) {
    return [];
  }
  const { socket } = endpoint;
  const version = options.apiVersion === null ? "" : `/v${options.apiVersion}`;
  const ask = async (path: string): Promise<unknown> => {
    const { timeoutMs = TIMEOUT_MS } = options;
    const request = { path: `${version}${path}`, timeoutMs, maxBytes: MAX_ANSWER_BYTES };
    const { status, body } = await callApi(endpoint, request);
    if (status === 404) {
      throw new EveryhopError("not-found", `the engine at \`${socket}\` knows no container ${container.id}`, {
        hint: "another engine may run it: look at `docker` and `k8s` under `workloadAttestors`",
      });
    }
    if (status !== 200) {
      throw new EveryhopError("unavailable", `the engine at \`${socket}\` answers with status ${status}`);
    }
    return body;
  };
  const found = readContainer(await ask(`/containers/${container.id}/json`), container.id);
  const selectors = containerSelectors(found);
  if (found.imageDigest !== null && needed("docker:image_config_digest:")) {
    // By digest: the name may meanwhile be of another image.
    const digest = readImageDigest(await ask(`/images/${encodeURIComponent(found.imageDigest)}/json`));
    selectors.push(`docker:image_config_digest:${digest}`);
  }
  return selectors;
}

function engineFor(options: DockerOptions, { runtime, sessionUid }: Container): UnixEndpoint | null {
  if (runtime !== "libpod") {
    return { kind: "unix", socket: options.socket };
  }
  if (sessionUid === null) {
    return { kind: "unix", socket: options.podmanSocket };
  }
  const template = options.rootlessPodmanSocket;
  return template === null
    ? null
    : { kind: "unix", socket: template.replace("%d", String(sessionUid)), ownerUid: sessionUid };
}
