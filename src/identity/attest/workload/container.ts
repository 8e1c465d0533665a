/**
 * Which container a process is in, by its control groups.
 *
 * A process with a part of the tree handed to it (a container, a user's session, a unit with `Delegate=`) can make groups of any
 * name below that part, never above it. So the *outermost* container counts, and none counts that lies inside something that is
 * handed out: `…/docker-MINE.scope/kubepods/pod-OTHER/OTHER` is MINE, and `/user.slice/…/docker-OTHER.scope` is nothing.
 */
import { EveryhopError } from "../../../core/base/errors.ts";
import type { Cgroup } from "../../../io/cgroup.ts";

export interface Container {
  /** 64 hexadecimal digits. */
  readonly id: string;
  /** Of Kubernetes; null outside of a pod, and where the runtime does not put it into the path. */
  readonly podUid: string | null;
  /** What stands before the id, as `docker`, `libpod`, `cri-containerd`, `crio`; empty where nothing does. */
  readonly runtime: string;
  /** The folder of the container's own, as `docker`, `default` or `machine.slice`. */
  readonly parent: string;
  /** Whose session it is in (rootless Podman), else null. */
  readonly sessionUid: number | null;
}

const ID = /^(?:(.*)[-:])?([0-9a-f]{64})(?:\.scope)?$/;
const POD = /(?:^|[-_])pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12})(?:\.slice)?(?=$|:)/;
/** Not containers, though an id stands in their name: the monitors of Podman and CRI-O. */
const MONITOR = /conmon$/;
/** What systemd hands out to users and services: below it, names are theirs. */
const HANDED_OUT = /^(?:user\.slice|user-\d+\.slice|.+\.service|.+\.scope)$/;
/** Runtimes' own units, in which nobody else makes groups: with the cgroupfs driver some keep containers there. */
const RUNTIME_UNIT =
  /^(?:containerd|docker|crio|cri-o|podman|kubelet|k3s|k3s-agent|rke2-server|rke2-agent|snap\.microk8s\.daemon-[a-z-]+)\.service$/;
const MAX_SEGMENTS = 64;

/**
 * The container of a process with `cgroups`, seen by an agent that has `own` ones; null where it is in none. Errors:
 * `failed-precondition` where the hierarchies of cgroup version 1 name different ones.
 */
export function findContainer(cgroups: readonly Cgroup[], own: readonly Cgroup[]): Container | null {
  const found = cgroups.flatMap(({ controllers, path }) => {
    const ownPath = own.find((one) => one.controllers === controllers)?.path ?? "/";
    const container = containerOf(path, ownPath);
    return container === null ? [] : [container];
  });
  // Where the agent runs inside a node that is itself a container, a hierarchy may show the node alone.
  const inPods = found.filter(({ podUid }) => podUid !== null);
  const candidates = inPods.length > 0 ? inPods : found;
  const [first] = candidates;
  if (first === undefined) {
    return null;
  }
  const other = candidates.find(({ id, podUid }) => id !== first.id || podUid !== first.podUid);
  if (other !== undefined) {
    throw new EveryhopError(
      "failed-precondition",
      `the process is in two containers by its control groups: ${first.id} and ${other.id}`,
    );
  }
  return first;
}

function containerOf(path: string, ownPath: string): Container | null {
  const segments = path.split("/").filter((segment) => segment !== "" && segment !== "..");
  if (segments.length > MAX_SEGMENTS) {
    return null;
  }
  const shared = sharedContainers(path, ownPath);
  // What the agent itself is in is no container of the workload's, unless there is nothing else.
  return outermost(segments, shared) ?? (shared > 0 ? outermost(segments, 0) : null);
}

/** How many segments lead to the innermost container that both paths are in. */
function sharedContainers(path: string, ownPath: string): number {
  if (path.startsWith("/..")) {
    return 0;
  }
  const segments = path.split("/").filter(Boolean);
  const own = ownPath.split("/").filter(Boolean);
  let shared = 0;
  for (let index = 0; index < segments.length && segments[index] === own[index]; index++) {
    if (readId(segments[index] as string) !== null) {
      shared = index + 1;
    }
  }
  return shared;
}

function outermost(segments: readonly string[], from: number): Container | null {
  let podUid: string | null = null;
  let sessionUid: number | null = null;
  let handedOut = false;
  for (let index = from; index < segments.length; index++) {
    const segment = segments[index] as string;
    podUid ??= readPodUid(segment);
    const named = readId(segment);
    if (named !== null) {
      // Rootless Podman lives where the user's names are his own: its user is part of the answer.
      const rootless = handedOut && sessionUid !== null && named.runtime === "libpod" && podUid === null;
      return handedOut && !rootless ? null : { ...named, podUid, parent: segments[index - 1] ?? "", sessionUid };
    }
    sessionUid ??= Number(/^user-(\d{1,10})\.slice$/.exec(segment)?.[1] ?? Number.NaN) || null;
    handedOut ||= HANDED_OUT.test(segment) && !(segments[index - 1] === "system.slice" && RUNTIME_UNIT.test(segment));
  }
  return null;
}

function readId(segment: string): { readonly id: string; readonly runtime: string } | null {
  const match = ID.exec(segment);
  if (match === null || MONITOR.test(match[1] ?? "")) {
    return null;
  }
  // `kubepods-besteffort-podUID.slice:cri-containerd:ID` has the pod before the runtime's name.
  return { id: match[2] as string, runtime: (match[1] ?? "").split(":").at(-1) as string };
}

function readPodUid(segment: string): string | null {
  // systemd's names cannot hold dashes, so the kubelet writes underscores there.
  return POD.exec(segment)?.[1]?.replaceAll("_", "-") ?? null;
}
