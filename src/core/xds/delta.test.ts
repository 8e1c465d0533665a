import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  type DeltaRequest,
  type DeltaResponse,
  inForce,
  NEW_PEER,
  type Offer,
  type Peer,
  receive,
  rejectionOf,
  settle,
  stateOf,
} from "./delta.ts";

const TYPE = "snapshot";

function offer(world: number, resources: Readonly<Record<string, string>>): Offer<string> {
  const named = Object.entries(resources).map(
    ([name, version]) => [name, { version, body: `${name}=${version}` }] as const,
  );
  return { world, types: new Map([[TYPE, new Map(named)]]) };
}

function request(fields: Partial<DeltaRequest> = {}): DeltaRequest {
  return { type: TYPE, subscribe: [], unsubscribe: [], initialVersions: new Map(), nonce: "", error: null, ...fields };
}

const contents = (response: DeltaResponse<string> | undefined) => response?.resources.map(({ body }) => body);

describe("one stream", () => {
  const first = offer(1, { a: "1", b: "1" });

  test("a subscription is answered, an acknowledgement puts it in force", () => {
    const asked = receive(NEW_PEER, request({ subscribe: ["a"] }), first);
    assert.deepEqual(contents(asked.send[0]), ["a=1"]);
    assert.equal(stateOf(asked.peer, first), "pending");
    const acked = receive(asked.peer, request({ nonce: "1" }), first);
    assert.deepEqual(acked.send, []);
    assert.equal(stateOf(acked.peer, first), "synced");
    assert.equal(inForce(acked.peer), 1);
  });

  test("a world that does not touch the peer is in force without a push", () => {
    const { peer } = inSync(["a"], first);
    const next = settle(peer, offer(2, { a: "1", b: "2" }));
    assert.deepEqual(next.send, []);
    assert.equal(inForce(next.peer), 2);
  });

  test("at most one response is on its way; what came meanwhile is sent as one", () => {
    const asked = receive(NEW_PEER, request({ subscribe: ["a"] }), first);
    const second = settle(asked.peer, offer(2, { a: "2" }));
    const third = settle(second.peer, offer(3, { a: "3" }));
    assert.deepEqual([...second.send, ...third.send], []);
    const acked = receive(third.peer, request({ nonce: "1" }), offer(3, { a: "3" }));
    assert.deepEqual(contents(acked.send[0]), ["a=3"]);
    assert.equal(inForce(acked.peer), 1);
  });

  test("a refusal is kept with its error, not sent again, and ends with other content", () => {
    const { peer } = inSync(["a"], first);
    const bad = offer(2, { a: "2" });
    const pushed = settle(peer, bad);
    const nacked = receive(pushed.peer, request({ nonce: "2", error: "no such field" }), bad);
    assert.deepEqual(nacked.send, []);
    assert.equal(stateOf(nacked.peer, bad), "rejected");
    assert.equal(rejectionOf(nacked.peer, bad), "no such field");
    assert.equal(inForce(nacked.peer), 1);
    const good = offer(3, { a: "3" });
    const again = settle(nacked.peer, good);
    assert.deepEqual(contents(again.send[0]), ["a=3"]);
    const acked = receive(again.peer, request({ nonce: "3" }), good);
    assert.equal(stateOf(acked.peer, good), "synced");
  });

  test("a refused change that is taken back leaves the peer in sync", () => {
    const { peer } = inSync(["a"], first);
    const bad = offer(2, { a: "2" });
    const nacked = receive(settle(peer, bad).peer, request({ nonce: "2", error: "no" }), bad);
    const back = settle(nacked.peer, offer(3, { a: "1" }));
    assert.deepEqual(back.send, []);
    assert.equal(stateOf(back.peer, offer(3, { a: "1" })), "synced");
  });

  test("an answer to an older response, or to none, says nothing", () => {
    const asked = receive(NEW_PEER, request({ subscribe: ["a"] }), first);
    for (const nonce of ["0", "7", "1 "]) {
      assert.equal(inForce(receive(asked.peer, request({ nonce }), first).peer), 0);
    }
  });

  test("who comes back with what it holds is sent only what differs", () => {
    const initialVersions = new Map([
      ["a", "1"],
      ["b", "0"],
      ["c", "9"],
    ]);
    const back = receive(NEW_PEER, request({ subscribe: ["a", "b", "c"], initialVersions }), first);
    assert.deepEqual(contents(back.send[0]), ["b=1"]);
    assert.deepEqual(back.send[0]?.removed, ["c"]);
    const same = receive(NEW_PEER, request({ subscribe: ["a"], initialVersions: new Map([["a", "1"]]) }), first);
    assert.deepEqual(same.send, []);
    assert.equal(stateOf(same.peer, first), "synced");
  });

  test("a name that does not exist is answered as removed, once, and sent when it comes to be", () => {
    const asked = receive(NEW_PEER, request({ subscribe: ["x"] }), first);
    assert.deepEqual(asked.send[0]?.removed, ["x"]);
    const acked = receive(asked.peer, request({ nonce: "1" }), first);
    assert.deepEqual(acked.send, []);
    assert.deepEqual(contents(settle(acked.peer, offer(2, { x: "1" })).send[0]), ["x=1"]);
  });

  test("a first request without names asks for everything, removals included", () => {
    const asked = receive(NEW_PEER, request(), first);
    assert.deepEqual(contents(asked.send[0]), ["a=1", "b=1"]);
    const acked = receive(asked.peer, request({ nonce: "1" }), first);
    const gone = settle(acked.peer, offer(2, { b: "1", c: "1" }));
    assert.deepEqual(contents(gone.send[0]), ["c=1"]);
    assert.deepEqual(gone.send[0]?.removed, ["a"]);
  });

  test("subscribing again to what is held sends it again; unsubscribing ends it", () => {
    const { peer } = inSync(["a"], first);
    assert.deepEqual(contents(receive(peer, request({ subscribe: ["a"] }), first).send[0]), ["a=1"]);
    const ended = receive(peer, request({ unsubscribe: ["a"] }), first);
    assert.deepEqual(settle(ended.peer, offer(2, { a: "2" })).send, []);
  });

  test("an unknown type and too many names are refused", () => {
    assert.throws(() => receive(NEW_PEER, request({ type: "x" }), first), { code: "invalid-argument" });
    const many = Array.from({ length: 10_001 }, (_, index) => `n${index}`);
    assert.throws(() => receive(NEW_PEER, request({ subscribe: many }), first), { code: "resource-exhausted" });
    assert.throws(() => receive(NEW_PEER, request({ subscribe: ["x".repeat(513)] }), first), {
      code: "invalid-argument",
    });
  });
});

function inSync(names: readonly string[], world: Offer<string>): { peer: Peer } {
  const asked = receive(NEW_PEER, request({ subscribe: names }), world);
  return receive(asked.peer, request({ nonce: "1" }), world);
}

/** A client of the protocol with both directions of its stream, which deliver in order and are lost on a reconnect. */
class Client {
  readonly names = new Set<string>();
  readonly resources = new Map<string, string>();
  toServer: DeltaRequest[] = [];
  toClient: DeltaResponse<string>[] = [];
  peer = NEW_PEER;
  #started = false;

  subscribe(name: string): void {
    this.names.add(name);
    this.#say({ subscribe: [name] });
  }

  unsubscribe(name: string): void {
    // A first request without names would ask for everything: this client never does.
    if (this.names.size > 1 && this.names.delete(name)) {
      this.resources.delete(name);
      this.#say({ unsubscribe: [name] });
    }
  }

  #say(fields: Partial<DeltaRequest>): void {
    if (!this.#started) {
      this.#started = true;
      this.toServer.push(request({ subscribe: [...this.names], initialVersions: new Map(this.resources) }));
    } else {
      this.toServer.push(request(fields));
    }
  }

  reconnect(): void {
    this.toServer = [];
    this.toClient = [];
    this.peer = NEW_PEER;
    this.#started = false;
    if (this.names.size > 0) {
      this.#say({});
    }
  }

  /** Takes the next response; `refuse`: as a whole. */
  hear(refuse: boolean): void {
    const next = this.toClient.shift();
    if (next === undefined) {
      return;
    }
    if (!refuse) {
      for (const { name, version } of next.resources) {
        if (this.names.has(name)) {
          this.resources.set(name, version);
        }
      }
      for (const name of next.removed) {
        this.resources.delete(name);
      }
    }
    this.toServer.push(request({ nonce: next.nonce, error: refuse ? "refused" : null }));
  }

  /** The server takes the next request, or looks at a new offer. */
  serve(offered: Offer<string>, what: "request" | "offer"): void {
    if (what === "offer") {
      this.#took(settle(this.peer, offered));
      return;
    }
    const next = this.toServer.shift();
    if (next !== undefined) {
      this.#took(receive(this.peer, next, offered));
    }
  }

  #took(step: { peer: Peer; send: readonly DeltaResponse<string>[] }): void {
    this.peer = step.peer;
    this.toClient.push(...step.send);
    assert.ok(this.toClient.length <= 1, "more than one response in flight");
  }
}

const NAMES = ["a", "b", "c"] as const;
const action = fc.oneof(
  fc.record({
    kind: fc.constant("world" as const),
    name: fc.constantFrom(...NAMES),
    version: fc.integer({ min: 0, max: 3 }),
  }),
  fc.record({ kind: fc.constant("subscribe" as const), name: fc.constantFrom(...NAMES) }),
  fc.record({ kind: fc.constant("unsubscribe" as const), name: fc.constantFrom(...NAMES) }),
  fc.record({ kind: fc.constant("hear" as const), refuse: fc.boolean() }),
  fc.record({ kind: fc.constantFrom("request" as const, "offer" as const, "reconnect" as const) }),
);

test("any interleaving of changes, answers, refusals and reconnects converges", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const wanted: Record<string, string> = { a: "1" };
      let world = 1;
      const client = new Client();
      client.subscribe("a");
      for (const step of actions) {
        if (step.kind === "world") {
          world++;
          // Version 0: the resource is gone.
          if (step.version === 0) {
            delete wanted[step.name];
          } else {
            wanted[step.name] = String(step.version);
          }
        } else if (step.kind === "subscribe" || step.kind === "unsubscribe") {
          client[step.kind](step.name);
        } else if (step.kind === "hear") {
          client.hear(step.refuse);
        } else if (step.kind === "reconnect") {
          client.reconnect();
        } else {
          client.serve(offer(world, wanted), step.kind);
        }
      }
      drain(client, offer(world, wanted));
      const refused = rejectionOf(client.peer, offer(world, wanted)) !== null;
      // A standing refusal ends with other content: after it, all is as it should be.
      for (const name of refused ? client.names : []) {
        wanted[name] = "final";
      }
      drain(client, offer(++world, wanted));
      assert.equal(stateOf(client.peer, offer(world, wanted)), "synced");
      assert.equal(inForce(client.peer), world);
      const expected = Object.entries(wanted).filter(([name]) => client.names.has(name));
      assert.deepEqual(new Map(client.resources), new Map(expected));
    }),
    { numRuns: 2_000 },
  );
});

function drain(client: Client, offered: Offer<string>): void {
  client.serve(offered, "offer");
  for (let turn = 0; turn < 400 && client.toServer.length + client.toClient.length > 0; turn++) {
    client.serve(offered, "request");
    client.hear(false);
  }
  assert.equal(client.toServer.length + client.toClient.length, 0, "does not come to rest");
}
