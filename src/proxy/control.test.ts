import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { SNAPSHOT_TYPE } from "../core/api/snapshot.ts";
import { Cell } from "../core/base/cell.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { PLAINTEXT_REFUSED } from "../core/policy/verdict.ts";
import { type SpiffeId, serverId, sidecarId } from "../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import { HOUR, testCa } from "../core/x509/fixture.ts";
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from "../gen/envoy/service/discovery/v3/discovery_pb.js";
import { type Report, type ReportReply, Reports } from "../gen/everyhop/proxy/report_pb.js";
import { SnapshotSchema } from "../gen/everyhop/proxy/snapshot_pb.js";
import { systemClock } from "../io/clock.ts";
import { silentLog } from "../io/log.ts";
import { listenTls, type RpcListener } from "../io/rpc/listen.ts";
import { ControlLink } from "./control-link.ts";
import { Denials } from "./denials.ts";
import { DryRuns } from "./dry-runs.ts";
import { id, TRUST_DOMAIN, testSvid } from "./fixture.ts";
import { verifyPeer } from "./peer.ts";
import { readSnapshot } from "./read-snapshot.ts";
import { Reporter } from "./reports.ts";
import { Subscription } from "./subscribe.ts";
import { Telemetry } from "./telemetry.ts";

/** Values in the order they come. */
class Inbox<T> {
  readonly #values: T[] = [];
  readonly #waiting: ((value: T) => void)[] = [];

  put(value: T): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#values.push(value);
    } else {
      next(value);
    }
  }

  next(): Promise<T> {
    const value = this.#values.shift();
    return value === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(value);
  }
}

const SERVICE = { name: "shop", namespace: "prod" };
const NAME = "prod/shop";

const message = (version: number, change: object = {}) => ({
  version,
  trustDomain: "example.com",
  meshConfig: "{}",
  workload: { ...SERVICE, serviceAccount: "shop", spiffeId: id("shop"), port: 8080, protocol: "http" },
  upstreams: [
    { ...SERVICE, name: "db", spiffeId: id("db"), port: 5432, protocol: "tcp", endpoints: ["10.0.0.1:15006"] },
  ],
  ...change,
});
const bytes = (version: number, change: object = {}) =>
  toBinary(SnapshotSchema, create(SnapshotSchema, message(version, change)));

describe("a sidecar and its control plane", () => {
  // gRPC's TLS looks at the real time: these certificates are valid now.
  const now = Date.now();
  const valid = { notBeforeMs: now - HOUR, notAfterMs: now + HOUR };
  const ca = testCa("control", valid);
  const bundles = new Cell<X509Bundles>(new Map([[TRUST_DOMAIN, [ca.der]]]));
  let listener: RpcListener<SpiffeId>;
  let streams: Inbox<ServerDuplexStream<DeltaDiscoveryRequest, Partial<DeltaDiscoveryResponse>>>;
  let requests: Inbox<DeltaDiscoveryRequest>;
  let reports: Inbox<Report>;
  let serverSvid: Cell<X509Svid>;
  const closing: { close(): void }[] = [];

  const serve = async (port = 0): Promise<void> => {
    listener = await listenTls({ host: "127.0.0.1", port }, serverSvid, {
      services: [
        {
          service: AggregatedDiscoveryService,
          handlers: {
            deltaAggregatedResources(call: ServerDuplexStream<DeltaDiscoveryRequest, Partial<DeltaDiscoveryResponse>>) {
              streams.put(call);
              call.on("error", () => {});
              call.on("data", (request: DeltaDiscoveryRequest) => requests.put(request));
            },
          },
        },
        {
          service: Reports,
          handlers: {
            stream(call: ServerDuplexStream<Report, ReportReply>) {
              call.on("error", () => {});
              call.on("data", (report: Report) => reports.put(report));
            },
          },
        },
      ],
      identify(socket) {
        const verified = verifyPeer(socket, bundles.value, systemClock.now());
        if (!verified.ok) {
          throw new EveryhopError("unauthenticated", verified.message);
        }
        return verified.id;
      },
    });
  };

  beforeEach(async () => {
    [streams, requests, reports] = [new Inbox(), new Inbox(), new Inbox()];
    serverSvid = new Cell(testSvid(ca, serverId(TRUST_DOMAIN), valid));
    await serve();
  });
  afterEach(async () => {
    for (const part of closing.splice(0)) {
      part.close();
    }
    await listener.close();
  });

  const own = new Cell<X509Svid | null>(testSvid(ca, sidecarId(TRUST_DOMAIN), valid));
  const connect = (svid: Cell<X509Svid | null> = own, others: readonly string[] = []): ControlLink => {
    const { port } = listener;
    const link = new ControlLink({
      targets: [...others, `127.0.0.1:${port}`],
      trustDomain: TRUST_DOMAIN,
      svid,
      bundles,
      log: silentLog,
      clock: systemClock,
      random: () => 0,
    });
    closing.push(link);
    return link;
  };
  const subscribe = (link: ControlLink, apply: (snapshot: Uint8Array) => void): Subscription => {
    const subscription = new Subscription({ link, service: SERVICE, apply });
    closing.unshift(subscription);
    return subscription;
  };
  const answer = (version: string, nonce: string, value: Uint8Array) => ({
    typeUrl: SNAPSHOT_TYPE,
    nonce,
    resources: [{ name: NAME, version, resource: { typeUrl: SNAPSHOT_TYPE, value } }],
  });

  it("asks for its snapshot, acknowledges what compiles, refuses what does not and keeps the last one", async () => {
    const versions: number[] = [];
    const subscription = subscribe(connect(), (value) => versions.push(readSnapshot(value).version));
    const stream = await streams.next();
    const first = await requests.next();
    assert.deepEqual([first.node?.id, first.typeUrl, first.resourceNamesSubscribe], [NAME, SNAPSHOT_TYPE, [NAME]]);
    stream.write(answer("v1", "n1", bytes(1)) as never);
    const ack = await requests.next();
    assert.deepEqual([ack.responseNonce, ack.errorDetail], ["n1", undefined]);
    assert.equal(subscription.state.value.kind, "synced");
    stream.write(answer("v2", "n2", bytes(2, { workload: undefined })) as never);
    const nack = await requests.next();
    assert.deepEqual([nack.responseNonce, nack.errorDetail?.message], ["n2", "the snapshot has no workload"]);
    assert.equal(subscription.state.value.kind, "rejected");
    stream.write(answer("v3", "n3", Buffer.from("garbage")) as never);
    assert.equal((await requests.next()).errorDetail?.message, "the snapshot is not readable");
    stream.write(answer("v4", "n4", bytes(4)) as never);
    assert.equal((await requests.next()).errorDetail, undefined);
    assert.deepEqual(versions, [1, 4]);
  });

  it("is stale when the control plane is away, and says what it has when that is back", async () => {
    const subscription = subscribe(connect(), () => {});
    const stream = await streams.next();
    await requests.next();
    stream.write(answer("v1", "n1", bytes(1)) as never);
    await requests.next();
    const { port } = listener;
    const stale = new Promise<void>((resolve) => {
      subscription.state.watch(({ kind }) => kind === "stale" && resolve());
    });
    await listener.close();
    await stale;
    await serve(port);
    const again = await requests.next();
    assert.deepEqual(again.initialResourceVersions, { [NAME]: "v1" });
    assert.equal(again.node?.id, NAME);
  });

  it("goes to the next replica where one is away, and says what it holds", async () => {
    // Nobody listens on port 1.
    const subscription = subscribe(connect(own, ["127.0.0.1:1"]), () => {});
    const first = await requests.next();
    assert.deepEqual(first.initialResourceVersions, {});
    (await streams.next()).write(answer("v1", "n1", bytes(1)) as never);
    await requests.next();
    assert.equal(subscription.state.value.kind, "synced");
    await listener.close();
    await serve(listener.port);
    assert.deepEqual(
      (await requests.next()).initialResourceVersions,
      { [NAME]: "v1" },
      "past the one that is away again",
    );
  });

  it("talks to the server of its trust domain and to nobody else", async () => {
    serverSvid.set(testSvid(ca, id("shop"), valid));
    const subscription = subscribe(connect(), () => assert.fail("a snapshot was taken"));
    const state = await new Promise<string>((resolve) => {
      subscription.state.watch((next) => resolve(next.kind === "stale" ? next.message : next.kind));
    });
    assert.match(state, /is not `spiffe:\/\/example\.com\/spire\/server`/);
  });

  it("waits for an identity of its own", async () => {
    const svid = new Cell<X509Svid | null>(null);
    subscribe(connect(svid), () => {});
    svid.set(own.value);
    assert.equal((await requests.next()).node?.id, NAME);
  });

  it("reports its identity, denials and kill receipts; receipts again on each new stream", async () => {
    const denials = new Denials({ value: 0 });
    const identity = new Cell<X509Svid | null>(testSvid(ca, id("shop"), valid));
    const reporter = new Reporter({
      link: connect(),
      service: SERVICE,
      denials,
      dryRuns: new DryRuns(new Telemetry()),
      svid: identity,
    });
    closing.unshift(reporter);
    const hello = await reports.next();
    assert.deepEqual([hello.node, hello.identity?.spiffeId], [NAME, id("shop")]);
    reporter.receipt({ order: "o1", connectionsClosed: 3 });
    const { receipts } = await reports.next();
    assert.deepEqual(
      receipts.map(({ order, connectionsClosed }) => [order, connectionsClosed]),
      [["o1", 3]],
    );
    denials.add({
      id: "d1",
      timeMs: systemClock.now(),
      source: null,
      sourceIp: "10.0.0.9",
      port: 8080,
      request: null,
      verdict: PLAINTEXT_REFUSED,
      changes: [],
      snapshotVersion: 7,
    });
    const [denial] = (await reports.next()).denials;
    assert.deepEqual(
      [
        denial?.id,
        denial?.source,
        denial?.sourceIp,
        denial?.method,
        denial?.reason,
        denial?.rule,
        denial?.snapshotVersion,
      ],
      ["d1", "", "10.0.0.9", "", "plaintext-refused", undefined, 7],
    );
    identity.set(null);
    assert.equal((await reports.next()).identity?.spiffeId, "");
    const { port } = listener;
    await listener.close();
    await serve(port);
    const again = await reports.next();
    assert.deepEqual([again.node, again.receipts[0]?.order], [NAME, "o1"]);
  });
});

describe("a snapshot off the wire", () => {
  const faults: readonly [name: string, change: object, message: RegExp][] = [
    ["no workload", { workload: undefined }, /no workload/],
    ["a trust domain that is none", { trustDomain: "Example" }, /is not a trust domain/],
    ["a port that is none", { workload: { ...message(1).workload, port: 70_000 } }, /is not a port/],
    ["a protocol that is unknown", { workload: { ...message(1).workload, protocol: "udp" } }, /is not a protocol/],
    [
      "an identity that is none",
      { workload: { ...message(1).workload, spiffeId: "example.com/a" } },
      /is not a SPIFFE ID/,
    ],
    [
      "an endpoint that is none",
      { upstreams: [{ ...message(1).upstreams[0], endpoints: ["10.0.0.1"] }] },
      /is not an address/,
    ],
    ["a kill of nobody", { kills: [{ order: "o", spiffeId: "" }] }, /is not a SPIFFE ID/],
  ];
  for (const [name, change, expected] of faults) {
    it(`is refused for ${name}`, () => {
      assert.throws(() => readSnapshot(bytes(1, change)), expected);
    });
  }
});
