/**
 * Selectors of a container that containerd runs without Docker (nerdctl, CRI): `containerd:namespace:NAME`,
 * `containerd:label:KEY:VALUE`, `containerd:image:NAME`, `containerd:image_digest:sha256:HEX`. The container is found by the
 * process's control group, what it is by containerd's own API.
 */
import { credentials, Metadata, type ServiceError, status as Status } from "@grpc/grpc-js";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { type Container as ContainerMessage, Containers } from "../../../../gen/containerd/containers_pb.js";
import { Images } from "../../../../gen/containerd/images_pb.js";
import { Status as TaskStatus } from "../../../../gen/containerd/task_pb.js";
import { Tasks } from "../../../../gen/containerd/tasks_pb.js";
import { parseCgroups, processCgroupText } from "../../../../io/cgroup.ts";
import { makeClient } from "../../../../io/rpc/adapter.ts";
import type { WorkloadAttestor } from "../attest.ts";
import { findContainer } from "../container.ts";
import { limitAtOnce } from "../limit.ts";

export interface ContainerdOptions {
  /** Path. */
  readonly socket: string;
  /** containerd's namespaces, in which the container is looked for. */
  readonly namespaces: readonly string[];
  readonly timeoutMs?: number;
  /** The agent's own control groups; default: as the kernel says. */
  readonly ownCgroups?: () => string;
}

export const CONTAINERD_DEFAULTS = {
  socket: "/run/containerd/containerd.sock",
  namespaces: ["k8s.io", "default"],
} as const satisfies ContainerdOptions;

const TIMEOUT_MS = 5_000;
const MAX_ANSWER_BYTES = 4 << 20;
const MAX_AT_ONCE = 16;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function containerdAttestor(options: ContainerdOptions): WorkloadAttestor {
  const { ownCgroups = () => processCgroupText("self") } = options;
  const limited = limitAtOnce(MAX_AT_ONCE);
  return {
    kind: "containerd",
    async attest({ cgroups }, needed) {
      const container = findContainer(parseCgroups(cgroups), parseCgroups(ownCgroups()));
      // Podman's containers are not containerd's.
      return container === null || container.runtime === "libpod"
        ? []
        : limited(() => inspect(options, container.id, needed));
    },
  };
}

type Api = ReturnType<typeof connect>;

function connect({ socket }: ContainerdOptions) {
  const target = `unix:${socket}`;
  const channel = { "grpc.max_receive_message_length": MAX_ANSWER_BYTES, "grpc.use_local_subchannel_pool": 1 };
  const insecure = credentials.createInsecure();
  const containers = makeClient(Containers, target, insecure, channel);
  const tasks = makeClient(Tasks, target, insecure, channel);
  const images = makeClient(Images, target, insecure, channel);
  return {
    containers,
    tasks,
    images,
    close() {
      containers.close();
      tasks.close();
      images.close();
    },
  };
}

async function inspect(options: ContainerdOptions, id: string, needed: (prefix: string) => boolean): Promise<string[]> {
  const api = connect(options);
  try {
    const { namespace, container } = await find(options, api, id);
    const call = within(options, namespace);
    const task = await ask(options, () => api.tasks.get({ containerId: id }, call));
    if (task?.process?.status !== TaskStatus.RUNNING) {
      throw new EveryhopError("not-found", `the container ${id} does not run`);
    }
    const wanted = container.image !== "" && needed("containerd:image_digest:");
    const image = wanted ? await ask(options, () => api.images.get({ name: container.image }, call)) : null;
    const digest = image?.image?.target?.digest ?? "";
    return [
      `containerd:namespace:${namespace}`,
      ...Object.entries(container.labels).map(([key, value]) => `containerd:label:${key}:${value}`),
      ...(container.image === "" ? [] : [`containerd:image:${container.image}`]),
      ...(DIGEST.test(digest) ? [`containerd:image_digest:${digest}`] : []),
    ];
  } finally {
    api.close();
  }
}

interface Found {
  readonly namespace: string;
  readonly container: ContainerMessage;
}

/** The container in the one namespace that has it. */
async function find(options: ContainerdOptions, api: Api, id: string): Promise<Found> {
  const { namespaces, socket } = options;
  const found = await Promise.all(
    namespaces.map(async (namespace): Promise<Found[]> => {
      const answer = await ask(options, () => api.containers.get({ id }, within(options, namespace)));
      return answer?.container?.id === id ? [{ namespace, container: answer.container }] : [];
    }),
  );
  const [one, other] = found.flat();
  if (one !== undefined && other === undefined) {
    return one;
  }
  const message = `containerd at \`${socket}\` knows the container ${id} in`;
  throw one === undefined
    ? new EveryhopError("not-found", `${message} none of ${namespaces.join(", ")}`, {
        hint: "`workloadAttestors.containerd.namespaces` says where to look; Docker's containers are for the `docker` attestor",
      })
    : new EveryhopError("failed-precondition", `${message} several of ${namespaces.join(", ")}`);
}

function within({ timeoutMs = TIMEOUT_MS }: ContainerdOptions, namespace: string) {
  const metadata = new Metadata();
  metadata.set("containerd-namespace", namespace);
  return { metadata, deadlineMs: timeoutMs };
}

/** The answer, or null where what was asked for is not there. */
async function ask<T>({ socket }: ContainerdOptions, call: () => Promise<T>): Promise<T | null> {
  try {
    return await call();
  } catch (error) {
    if ((error as Partial<ServiceError>).code === Status.NOT_FOUND) {
      return null;
    }
    throw new EveryhopError("unavailable", `containerd at \`${socket}\`: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
