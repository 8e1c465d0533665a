/** For tests: a control plane on real TLS with throwaway SVIDs, and sidecars that do as they are told. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fromBinary, type MessageShape, toJson } from "@bufbuild/protobuf";
import { type Struct, StructSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { Registry as MetricsRegistry } from "prom-client";
import type { KillDocument } from "../core/api/admin.ts";
import { SNAPSHOT_TYPE } from "../core/api/snapshot.ts";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import { parseSpiffeId, type SpiffeId, serverId, sidecarId, type TrustDomain } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { verifyX509Svid } from "../core/spiffe/x509-svid.ts";
import { HOUR, type TestCa, testCa, testKey, testLeaf } from "../core/x509/fixture.ts";
import { AggregatedDiscoveryService } from "../gen/envoy/service/discovery/v3/discovery_pb.js";
import type { ReportSchema } from "../gen/everyhop/proxy/report_pb.js";
import { Reports } from "../gen/everyhop/proxy/report_pb.js";
import { SnapshotSchema } from "../gen/everyhop/proxy/snapshot_pb.js";
import { systemClock } from "../io/clock.ts";
import { type Log, silentLog } from "../io/log.ts";
import { makeClient } from "../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../io/rpc/channel.ts";
import { fromStatus } from "../io/rpc/errors.ts";
import type { Identities, IssuedIdentity, KilledIdentity } from "./identities.ts";
import type { Service } from "./service.ts";
import { type Control, startControl } from "./start.ts";

export const DOMAIN = "example.com" as TrustDomain;

interface Cleanup {
  after(clean: () => void | Promise<void>): void;
}

export function testService(name: string, fields: Partial<Service> = {}): Service {
  return {
    name,
    namespace: "production",
    serviceAccount: name,
    labels: { app: name },
    port: 8080,
    protocol: "http",
    endpoints: ["127.0.0.1:15006"],
    ...fields,
  };
}

export function testSvid(ca: TestCa, id: SpiffeId, options: { notAfterMs?: number } = {}): X509Svid {
  const own = testKey();
  const notBefore = Date.now() - 10_000;
  const notAfter = options.notAfterMs ?? Date.now() + HOUR;
  const leaf = testLeaf(ca, id, { notBeforeMs: notBefore, notAfterMs: notAfter }, own);
  const keyDer = own.key.export({ format: "der", type: "pkcs8" });
  return { id, chain: [leaf], keyDer, serial: "01", notBefore, notAfter, hint: "" };
}

export function testAuthority(): TestCa {
  return testCa("authority", { notBeforeMs: Date.now() - HOUR, notAfterMs: Date.now() + 24 * HOUR });
}

/** The registry's part, in memory. */
export function memoryIdentities(known: readonly IssuedIdentity[] = []): Identities {
  const kills = new Cell<readonly KilledIdentity[]>([]);
  let orders = 0;
  return {
    kills,
    kill: async (spiffeId) => {
      const there = kills.value.find((kill) => kill.spiffeId === spiffeId);
      const kill = there ?? { order: `order-${++orders}`, spiffeId, since: Date.now() };
      if (there === undefined) {
        kills.set([...kills.value, kill]);
      }
      return kill;
    },
    restore: async (spiffeId) => {
      const there = kills.value.find((kill) => kill.spiffeId === spiffeId) ?? null;
      kills.set(kills.value.filter((kill) => kill !== there));
      return there;
    },
    isRegistered: (id) => known.some(({ spiffeId }) => spiffeId === id),
    known: async () => known,
  };
}

export interface TestControl {
  readonly control: Control;
  readonly dir: string;
  readonly ca: TestCa;
  readonly services: Cell<readonly Service[]>;
  readonly identities: Identities;
  readonly metrics: MetricsRegistry;
  /** Writes a file under the policy folder. */
  save(name: string, text: string): void;
  sidecar(node: string, options?: SidecarOptions): Sidecar;
}

export interface TestControlOptions {
  readonly services?: readonly Service[];
  readonly files?: Readonly<Record<string, string>>;
  readonly identities?: Identities;
  readonly clock?: Clock;
  readonly log?: Log;
  readonly meshConfig?: unknown;
  readonly versionFile?: string;
}

/** A control plane on a free port of loopback, over `policies/` of a folder of its own. */
export async function testControl(t: Cleanup, options: TestControlOptions = {}): Promise<TestControl> {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-control-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const save = (name: string, text: string): void => {
    const path = join(dir, "policies", name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  };
  mkdirSync(join(dir, "policies"));
  for (const [name, text] of Object.entries(options.files ?? {})) {
    save(name, text);
  }
  const ca = testAuthority();
  const services = new Cell<readonly Service[]>(options.services ?? [testService("payment-service")]);
  const identities = options.identities ?? memoryIdentities();
  const metrics = new MetricsRegistry();
  const control = await startControl({
    trustDomain: DOMAIN,
    policies: [join(dir, "policies")],
    baseDir: dir,
    meshConfig: options.meshConfig ?? {},
    services,
    listen: [{ host: "127.0.0.1", port: 0 }],
    svid: new Cell(testSvid(ca, serverId(DOMAIN))),
    authorities: new Cell<readonly Uint8Array[]>([ca.der]),
    identities,
    ...(options.versionFile === undefined ? {} : { versionFile: options.versionFile }),
    clock: options.clock ?? systemClock,
    log: options.log ?? silentLog,
    metrics,
  });
  const sidecars: Sidecar[] = [];
  t.after(async () => {
    for (const sidecar of sidecars) {
      sidecar.close();
    }
    await control.close();
  });
  const port = control.addresses[0]?.port ?? 0;
  const sidecar = (node: string, sidecarOptions: SidecarOptions = {}): Sidecar => {
    const made = new Sidecar(node, port, ca, sidecarOptions);
    sidecars.push(made);
    return made;
  };
  return { control, dir, ca, services, identities, metrics, save, sidecar };
}

export interface SidecarOptions {
  readonly svid?: X509Svid | null;
  /** Says why a snapshot is refused, or null to take it. */
  readonly refuse?: (snapshot: Snapshot) => string | null;
  /** What it holds from an earlier stream. */
  readonly initialVersions?: Readonly<Record<string, string>>;
  /** Does not answer at all. */
  readonly mute?: boolean;
  readonly reports?: boolean;
  /** What it says of each order: connections closed. */
  readonly closes?: number;
}

export type Snapshot = MessageShape<typeof SnapshotSchema>;

/** A sidecar as the control plane sees one. */
export class Sidecar {
  readonly node: string;
  readonly snapshots: Snapshot[] = [];
  readonly versions: Record<string, string> = {};
  error: (Error & { code?: number; details?: string }) | null = null;
  pushes = 0;
  readonly #options: SidecarOptions;
  readonly #channel: { close(): void };
  readonly #ads: ClientDuplexStream<never, never>;
  readonly #reports: ReportCall | null;
  readonly #receipts = new Set<string>();
  #waiting: (() => void)[] = [];

  constructor(node: string, port: number, ca: TestCa, options: SidecarOptions) {
    this.node = node;
    this.#options = options;
    const svid = options.svid === undefined ? testSvid(ca, sidecarId(DOMAIN)) : options.svid;
    const credentials = spiffeCredentials({
      svid: svid === null ? null : new Cell<X509Svid | null>(svid),
      authorities: new Cell<readonly Uint8Array[]>([ca.der]),
      refuse: (chain) => {
        const result = verifyX509Svid(chain, () => ({ x509Authorities: [ca.der] }), Date.now());
        return result.ok && result.id === serverId(DOMAIN) ? null : "not the server";
      },
    });
    const ads = makeClient(AggregatedDiscoveryService, `127.0.0.1:${port}`, credentials, SPIFFE_CHANNEL_OPTIONS);
    this.#channel = ads;
    const call = ads.deltaAggregatedResources();
    this.#ads = call as never;
    call.on("data", (response) => this.#hear(response, call));
    call.on("error", (error) => this.#fail(error));
    call.write({
      node: { id: node },
      typeUrl: SNAPSHOT_TYPE,
      resourceNamesSubscribe: [node],
      initialResourceVersions: { ...options.initialVersions },
    });
    this.#reports = options.reports === false ? null : this.#openReports(port, credentials, ads.channel);
  }

  get snapshot(): Snapshot | undefined {
    return this.snapshots.at(-1);
  }

  #openReports(port: number, credentials: ReturnType<typeof spiffeCredentials>, share: unknown): ReportCall {
    const client = makeClient(Reports, `127.0.0.1:${port}`, credentials, { share: { channel: share as never } });
    const call = client.stream() as unknown as ReportCall;
    call.on("error", () => {});
    call.on("data", () => {});
    call.write({ node: this.node });
    return call;
  }

  report(report: ReportInit): void {
    this.#reports?.write(report);
  }

  reportIdentity(svid: X509Svid): void {
    const { id, serial, notBefore, notAfter } = svid;
    const times = { notBefore: timestampFromMs(notBefore), notAfter: timestampFromMs(notAfter) };
    this.report({ identity: { spiffeId: id, serial, ...times } });
  }

  #hear(response: ResponseLike, call: { write(request: object): void }): void {
    this.pushes++;
    if (this.#options.mute === true) {
      this.#wake();
      return;
    }
    const { resources, nonce, removedResources } = response;
    const snapshots = resources.map(({ resource }) => fromBinary(SnapshotSchema, resource?.value ?? new Uint8Array()));
    const refusal = snapshots.map((snapshot) => this.#options.refuse?.(snapshot) ?? null).find((why) => why !== null);
    if (refusal === undefined) {
      this.snapshots.push(...snapshots);
      for (const { name, version } of resources) {
        this.versions[name] = version;
      }
      for (const name of removedResources) {
        delete this.versions[name];
      }
    }
    const answer = refusal === undefined ? {} : { errorDetail: { code: 3, message: refusal } };
    call.write({ typeUrl: SNAPSHOT_TYPE, responseNonce: nonce, ...answer });
    this.#confirmKills();
    this.#wake();
  }

  #confirmKills(): void {
    const fresh = (this.snapshot?.kills ?? []).map(({ order }) => order).filter((order) => !this.#receipts.has(order));
    for (const order of fresh) {
      this.#receipts.add(order);
    }
    if (fresh.length > 0) {
      this.report({ receipts: fresh.map((order) => ({ order, connectionsClosed: this.#options.closes ?? 0 })) });
    }
  }

  #fail(error: Error): void {
    this.error ??= error;
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) {
      wake();
    }
  }

  /** Until `holds` of this sidecar: looked at after each message. */
  async until(holds: (sidecar: Sidecar) => boolean): Promise<void> {
    while (!holds(this)) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  close(): void {
    (this.#ads as { cancel(): void }).cancel();
    (this.#reports as { cancel(): void } | null)?.cancel();
    this.#channel.close();
  }
}

interface ResponseLike {
  readonly nonce: string;
  readonly removedResources: readonly string[];
  readonly resources: readonly { name: string; version: string; resource?: { value: Uint8Array } | undefined }[];
}

type ReportMessage = MessageShape<typeof ReportSchema>;
type ReportInit = { [K in keyof Omit<ReportMessage, "$typeName" | "$unknown">]?: unknown };
interface ReportCall {
  write(report: ReportInit): void;
  on(event: string, listener: (value: never) => void): void;
}

/** Until `holds`, looked at between turns of the event loop; for what tells nobody when it changes. */
export async function eventually(holds: () => boolean | Promise<boolean>, withinMs = 5_000): Promise<void> {
  const end = Date.now() + withinMs;
  while (!(await holds())) {
    if (Date.now() > end) {
      throw new Error(`did not come true within ${withinMs} ms: ${holds}`);
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

export const id = (text: string): SpiffeId => parseSpiffeId(text);

/** The document that an admin handler answers with. */
export function documentOf<T>(handler: unknown, request: object): Promise<T> {
  const handle = handler as (call: object, done: (error: unknown, reply?: Struct) => void) => void;
  return new Promise((resolve, reject) => {
    handle({ request }, (error, reply) => {
      if (error === null && reply !== undefined) {
        resolve(toJson(StructSchema, reply) as T);
      } else {
        reject(fromStatus(Object.assign(new Error("failed"), error)));
      }
    });
  });
}

/** Kills or restores as the admin socket would. */
export function killOf(
  mesh: { readonly control: Control },
  what: "kill" | "restore",
  spiffeId: string,
  force = false,
): Promise<KillDocument> {
  return documentOf(mesh.control.admin[what], { spiffeId, force });
}
