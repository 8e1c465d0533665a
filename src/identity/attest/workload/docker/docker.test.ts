import assert from "node:assert/strict";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import fc from "fast-check";
import type { Observation } from "../observe.ts";
import { DOCKER_DEFAULTS, type DockerOptions, dockerAttestor } from "./docker.ts";
import { readContainer, readImageDigest } from "./engine.ts";

const ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
const IMAGE = `sha256:${"ab".repeat(32)}`;
const dir = mkdtempSync(join(tmpdir(), "everyhop-docker-"));
after(() => rmSync(dir, { recursive: true, force: true }));
const engines: Server[] = [];
afterEach(async () => {
  for (const engine of engines.splice(0)) {
    engine.closeAllConnections();
    await new Promise((resolve) => engine.close(resolve));
  }
});

/** As the Docker Engine answers, the fields that matter here. */
const CONTAINER = {
  Id: ID,
  State: { Status: "running", Running: true, Pid: 4711 },
  Image: IMAGE,
  Config: {
    Image: "nginx:1.27",
    Env: ["PATH=/bin", "MODE=a=b"],
    Labels: { "com.example.name": "shop", "a:b": "c:d" },
  },
};

type Answer = { readonly status?: number; readonly body: unknown };

/** A Docker Engine on a unix socket. */
async function engine(name: string, answers: Readonly<Record<string, Answer>>): Promise<string> {
  const socket = join(dir, name);
  const server = createServer((request, response) => {
    const { status = 200, body } = answers[request.url ?? ""] ?? {
      status: 404,
      body: { message: "No such container" },
    };
    response.writeHead(status, { "content-type": "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  });
  engines.push(server);
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return socket;
}

const inspected = (body: unknown, image: unknown = { Id: IMAGE }): Readonly<Record<string, Answer>> => ({
  [`/containers/${ID}/json`]: { body },
  [`/images/${encodeURIComponent(IMAGE)}/json`]: { body: image },
});

function attest(options: Partial<DockerOptions>, path = `/docker/${ID}`, needed = () => true) {
  const attestor = dockerAttestor({ ...DOCKER_DEFAULTS, ownCgroups: () => "0::/", ...options });
  return attestor.attest({ cgroups: `0::${path}` } as Observation, needed);
}

test("a container's process has the container's labels, environment and image", async () => {
  const socket = await engine("a.sock", inspected(CONTAINER));
  assert.deepEqual(await attest({ socket }), [
    "docker:label:com.example.name:shop",
    "docker:label:a:b:c:d",
    "docker:env:PATH=/bin",
    "docker:env:MODE=a=b",
    "docker:image_id:nginx:1.27",
    `docker:image_config_digest:${IMAGE}`,
  ]);
  assert.equal((await attest({ socket }, undefined, () => false)).length, 5);
  assert.deepEqual(await attest({ socket }, "/system.slice/sshd.service"), []);
});

test("the API's version is the configured one", async () => {
  const socket = await engine("v.sock", { [`/v1.44/containers/${ID}/json`]: { body: { ...CONTAINER, Image: "" } } });
  assert.equal((await attest({ socket, apiVersion: "1.44" })).length, 5);
});

test("what the engine does not confirm is not said", async () => {
  const table: readonly (readonly [unknown, RegExp])[] = [
    [{ ...CONTAINER, Id: "0".repeat(64) }, /says nothing of this container/],
    [{ ...CONTAINER, State: { Running: false } }, /does not run/],
    [{ ...CONTAINER, Config: null }, /no configuration/],
    [{ ...CONTAINER, Config: { Labels: { a: 1 } } }, /of another form/],
    [{ ...CONTAINER, Config: { Env: "x" } }, /of another form/],
    ["{", /says nothing/],
    ["[]", /says nothing/],
  ];
  for (const [index, [body, message]] of table.entries()) {
    const socket = await engine(`bad-${index}.sock`, inspected(body));
    await assert.rejects(attest({ socket }), message);
  }
  const socket = await engine("image.sock", inspected(CONTAINER, { Id: "latest" }));
  await assert.rejects(attest({ socket }), /no digest of the image/);
});

test("an engine that is away, knows nothing, says too much or nothing is a failure of its own", async () => {
  await assert.rejects(attest({ socket: join(dir, "none.sock") }), { code: "unavailable" });
  const empty = await engine("empty.sock", {});
  await assert.rejects(attest({ socket: empty }), { code: "not-found" });
  const broken = await engine("broken.sock", { [`/containers/${ID}/json`]: { status: 500, body: {} } });
  await assert.rejects(attest({ socket: broken }), /status 500/);
  const endless = await engine("endless.sock", inspected(JSON.stringify("x".repeat(5 << 20))));
  await assert.rejects(attest({ socket: endless }), /longer than/);
  const silent = createServer(() => {});
  engines.push(silent);
  const socket = join(dir, "silent.sock");
  await new Promise<void>((resolve) => silent.listen(socket, resolve));
  await assert.rejects(attest({ socket, timeoutMs: 20 }), /no answer within 20 ms/);
});

test("Podman is asked for its own containers, rootless Podman where it is configured and is that user's", async () => {
  const podmanSocket = await engine("podman.sock", inspected({ ...CONTAINER, Image: IMAGE.slice(7) }));
  const none = { socket: join(dir, "none.sock") };
  const scope = `libpod-${ID}.scope/container`;
  assert.equal((await attest({ ...none, podmanSocket }, `/machine.slice/${scope}`)).length, 6);
  const uid = process.getuid?.() ?? 0;
  const session = (of: number) => `/user.slice/user-${of}.slice/user@${of}.service/user.slice/${scope}`;
  assert.deepEqual(await attest({ ...none, podmanSocket }, session(1234)), []);
  // The user's path leads to an engine of somebody else: a link to Docker's socket, say.
  symlinkSync(podmanSocket, join(dir, "user-1234.sock"));
  const rootlessPodmanSocket = join(dir, "user-%d.sock");
  await assert.rejects(attest({ ...none, rootlessPodmanSocket }, session(1234)), /listens there, not user 1234/);
  if (uid !== 0) {
    await engine(`user-${uid}.sock`, inspected(CONTAINER));
    assert.equal((await attest({ ...none, rootlessPodmanSocket }, session(uid))).length, 6);
  }
});

test("any answer has a reading or a typed error", () => {
  const odd = fc.oneof(
    fc.jsonValue(),
    fc.jsonValue().map((Config) => ({ ...CONTAINER, Config })),
  );
  fc.assert(
    fc.property(odd, (body) => {
      for (const read of [() => readContainer(body, ID), () => readImageDigest(body)]) {
        try {
          read();
        } catch (error) {
          assert.match(String((error as { code?: string }).code), /^(unavailable|not-found)$/);
        }
      }
    }),
  );
});
