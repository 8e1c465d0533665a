import assert from "node:assert/strict";
import { connect, createServer, type Server, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { FakeClock } from "../../core/base/clock.ts";
import { startTestAgent, testFolder, until } from "./fixture.ts";
import { FakeServer } from "./server-fixture.ts";

/** Another address of a server, which comes and goes by itself. */
class Replica {
  #port = 0;
  #front: Server | null = null;
  readonly #target: number;
  readonly #sockets = new Set<Socket>();

  constructor(t: TestContext, server: FakeServer) {
    this.#target = Number(server.address.split(":")[1]);
    t.after(() => this.kill());
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    const front = createServer((socket) => {
      const back = connect(this.#target, "127.0.0.1");
      this.#sockets.add(socket).add(back);
      socket.on("error", () => {}).on("close", () => back.destroy());
      back.on("error", () => {}).on("close", () => socket.destroy());
      socket.pipe(back).pipe(socket);
    });
    await new Promise<void>((resolve) => front.listen(this.#port, "127.0.0.1", resolve));
    this.#port = (front.address() as { port: number }).port;
    this.#front = front;
  }

  kill(): void {
    this.#front?.close();
    for (const socket of this.#sockets) {
      socket.destroy();
    }
    this.#sockets.clear();
  }
}

test("an agent goes to the next server when one is gone, and back again, and misses no entry", async (t) => {
  const clock = new FakeClock(Date.now());
  const server = new FakeServer(clock);
  await server.listen();
  const folder = testFolder();
  t.after(folder.remove);
  t.after(() => server.close());
  const first = new Replica(t, server);
  const second = new Replica(t, server);
  await first.start();
  await second.start();
  first.kill();
  const tick = () => clock.advance(100);
  // It begins at the one that is gone.
  const options = { servers: [first.address, second.address], random: () => 0 };
  let joined = false;
  const joining = startTestAgent(server, folder.dir, options).finally(() => {
    joined = true;
  });
  joining.catch(() => {});
  await until(() => joined, "joined by the second", tick);
  const agent = await joining;
  t.after(() => agent.close());
  const { cache, sync } = agent;
  server.addEntry({ id: "e1", spiffeId: "spiffe://example.com/a", selectors: ["unix:uid:0"] });
  await until(() => cache.entries.has("e1"), "pushed by the second");
  second.kill();
  await until(() => sync.value.problem !== null, "the loss is noticed", tick);
  assert.ok(cache.entries.has("e1"), "what it had is served on");
  await first.start();
  server.addEntry({ id: "e2", spiffeId: "spiffe://example.com/b", selectors: ["unix:uid:0"] });
  await until(() => cache.entries.has("e2"), "told by the first", tick);
  await until(() => sync.value.problem === null, "all is well again", tick);
});
