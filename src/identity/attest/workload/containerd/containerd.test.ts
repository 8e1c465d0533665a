import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import { type Metadata, status as Status } from "@grpc/grpc-js";
import { Containers } from "../../../../gen/containerd/containers_pb.js";
import { Images } from "../../../../gen/containerd/images_pb.js";
import { Status as TaskStatus } from "../../../../gen/containerd/task_pb.js";
import { Tasks } from "../../../../gen/containerd/tasks_pb.js";
import type { Handlers } from "../../../../io/rpc/adapter.ts";
import { listenUnix } from "../../../../io/rpc/listen.ts";
import type { Observation } from "../observe.ts";
import { CONTAINERD_DEFAULTS, containerdAttestor } from "./containerd.ts";

const ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
const DIGEST = `sha256:${"ab".repeat(32)}`;
const dir = mkdtempSync(join(tmpdir(), "everyhop-containerd-"));
after(() => rmSync(dir, { recursive: true, force: true }));
const listeners: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(listeners.splice(0).map((listener) => listener.close()));
});

interface Fake {
  readonly namespaces?: readonly string[];
  readonly id?: string;
  readonly status?: TaskStatus;
  readonly silent?: boolean;
}

/** containerd's API on a unix socket, with one container in each of `namespaces`. */
async function containerd(name: string, fake: Fake = {}): Promise<string> {
  const { namespaces = ["default"], id = ID, status = TaskStatus.RUNNING, silent = false } = fake;
  const inside = ({ metadata }: { metadata: Metadata }) =>
    namespaces.includes(String(metadata.get("containerd-namespace")[0]));
  const none = { code: Status.NOT_FOUND, details: "not found" };
  const container = { id, labels: { "nerdctl/name": "shop", app: "a:b" }, image: "docker.io/library/nginx:1.27" };
  const containers: Handlers<typeof Containers> = {
    get(call, callback) {
      if (!silent && inside(call)) {
        callback(null, { container });
      } else if (!silent) {
        callback(none);
      }
    },
  };
  const tasks: Handlers<typeof Tasks> = {
    get(call, callback) {
      if (inside(call)) {
        callback(null, { process: { id, pid: 1, status } });
      } else {
        callback(none);
      }
    },
  };
  const images: Handlers<typeof Images> = {
    get: (call, callback) =>
      callback(null, { image: { name: call.request.name, target: { mediaType: "x", digest: DIGEST } } }),
  };
  const path = join(dir, name);
  const services = [
    { service: Containers, handlers: containers },
    { service: Tasks, handlers: tasks },
    { service: Images, handlers: images },
  ];
  listeners.push(await listenUnix<null>(path, 0o600, { services, identify: () => null }));
  return path;
}

function attest(socket: string, path = `/default/${ID}`, needed = () => true, timeoutMs = 5_000) {
  const attestor = containerdAttestor({ ...CONTAINERD_DEFAULTS, socket, timeoutMs, ownCgroups: () => "0::/" });
  return attestor.attest({ cgroups: `0::${path}` } as Observation, needed);
}

test("a container has its namespace, labels and image", async () => {
  const socket = await containerd("a.sock");
  assert.deepEqual((await attest(socket)).toSorted(), [
    "containerd:image:docker.io/library/nginx:1.27",
    `containerd:image_digest:${DIGEST}`,
    "containerd:label:app:a:b",
    "containerd:label:nerdctl/name:shop",
    "containerd:namespace:default",
  ]);
  assert.equal((await attest(socket, `/system.slice/nerdctl-${ID}.scope`, () => false)).length, 4);
  assert.deepEqual(await attest(socket, "/system.slice/sshd.service"), []);
  assert.deepEqual(await attest(socket, `/machine.slice/libpod-${ID}.scope`), []);
});

test("what containerd does not confirm is not said", async () => {
  await assert.rejects(attest(await containerd("b.sock", { namespaces: [] })), { code: "not-found" });
  await assert.rejects(attest(await containerd("c.sock", { namespaces: ["default", "k8s.io"] })), /in several of/);
  await assert.rejects(attest(await containerd("d.sock", { id: "0".repeat(64) })), { code: "not-found" });
  await assert.rejects(attest(await containerd("e.sock", { status: TaskStatus.STOPPED })), /does not run/);
  await assert.rejects(attest(join(dir, "none.sock")), { code: "unavailable" });
  const silent = await containerd("f.sock", { silent: true });
  await assert.rejects(attest(silent, undefined, undefined, 50), { code: "unavailable" });
});
