/** For tests: sidecars of one throwaway mesh in one process, with real sockets and real TLS. */
import { createServer, type Server, type Socket } from "node:net";
import type { Snapshot, Upstream } from "../core/api/snapshot.ts";
import type { Clock } from "../core/base/clock.ts";
import { parseTrustDomain, type SpiffeId, workloadId } from "../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import { NOW, type TestCa, testCa, testKey, testLeaf } from "../core/x509/fixture.ts";
import { systemClock } from "../io/clock.ts";
import { silentLog } from "../io/log.ts";
import { formatAddress } from "../io/net.ts";
import { AccessLog } from "./access-log.ts";
import { TIMEOUTS, type Timeouts } from "./context.ts";
import type { Enforcer, Verdict } from "./enforce.ts";
import { Sidecar } from "./sidecar.ts";
import { makeFacts } from "./state.ts";

export const TRUST_DOMAIN = parseTrustDomain("example.com");
export const id = (name: string): SpiffeId => workloadId(TRUST_DOMAIN, "prod", name);

const verdict = (decision: "allow" | "deny", reason: Verdict["reason"], status: number): Verdict => ({
  decision,
  reason,
  status,
  policy: null,
  rule: null,
  audit: [],
  dryRun: { decision, policy: null },
  custom: null,
});
const ALLOW = verdict("allow", "no-policy", 200);
const DENY = verdict("deny", "no-allow-matched", 403);

/** A policy for tests of the data path: allows what `allow` says. */
export function testEnforcer(
  allow: (principal: string | null, method: string | null, path: string | null) => boolean = () => true,
  mtls: Enforcer["mtls"] = "STRICT",
): Enforcer {
  return {
    mtls,
    hasDryRun: false,
    tokens: null,
    providers: [],
    provider: () => null,
    normalize: (target) => {
      if (target.includes("%00")) {
        return null;
      }
      return target.includes("/./") ? target.replaceAll("/./", "/") : target;
    },
    http: (peer, { method, path }) => (allow(peer.principal, method, path) ? ALLOW : DENY),
    tcp: (peer) => (allow(peer.principal, null, null) ? ALLOW : DENY),
    changes: () => [],
  };
}

/** The system's clock, moved to the time of the test certificates. */
export const testClock: Clock = { now: () => NOW + performance.now(), after: systemClock.after };

export function testSvid(
  ca: TestCa,
  spiffeId: SpiffeId,
  options: { notBeforeMs?: number; notAfterMs?: number } = {},
): X509Svid {
  const key = testKey();
  const leaf = testLeaf(ca, spiffeId, options, key);
  return {
    id: spiffeId,
    chain: [leaf],
    keyDer: key.key.export({ format: "der", type: "pkcs8" }),
    serial: "01",
    notBefore: options.notBeforeMs ?? NOW,
    notAfter: options.notAfterMs ?? NOW + 3_600_000,
    hint: "",
  };
}

export interface TestService {
  readonly name: string;
  readonly protocol?: "http" | "tcp";
  /** Answers on a raw socket. */
  readonly serve: (socket: Socket) => void;
}

export interface Member {
  readonly name: string;
  readonly sidecar: Sidecar;
  readonly app: Server;
  readonly appPort: number;
  /** Every byte that reached the application. */
  seen: string;
  readonly inboundPort: number;
  /** The port to reach another member through this one's sidecar. */
  outboundPort(name: string): number;
}

export class TestMesh {
  ca: TestCa = testCa("mesh root");
  version = 1;
  readonly members = new Map<string, Member>();
  readonly #services: readonly TestService[];
  readonly #appSockets = new Set<Socket>();
  enforcers = new Map<string, Enforcer>();
  /** By service. */
  readonly opaBundles = new Map<string, Snapshot["bundles"]>();
  kills: Snapshot["kills"] = [];

  constructor(services: readonly TestService[]) {
    this.#services = services;
  }

  get bundles(): X509Bundles {
    return new Map([[TRUST_DOMAIN, [this.ca.der]]]);
  }

  member(name: string): Member {
    return this.members.get(name) as Member;
  }

  async start(options: { timeouts?: Timeouts; accessLog?: string; unconfigured?: boolean } = {}): Promise<void> {
    for (const service of this.#services) {
      await this.#startOne(service, options);
    }
    if (options.unconfigured !== true) {
      this.push();
    }
    for (const { name, sidecar } of this.members.values()) {
      sidecar.state.bundles.set(this.bundles);
      sidecar.state.svid.set(testSvid(this.ca, id(name)));
    }
  }

  async #startOne(service: TestService, options: { timeouts?: Timeouts; accessLog?: string }): Promise<void> {
    const app = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {});
      this.#appSockets.add(socket);
      socket.once("close", () => this.#appSockets.delete(socket));
      service.serve(socket);
      // After the application: Node's HTTP server takes the socket's bytes for itself until someone else listens too.
      socket.on("data", (chunk: Buffer) => {
        member.seen = (member.seen + chunk.toString("latin1")).slice(-1_000_000);
      });
    });
    await new Promise<void>((resolve) => app.listen(0, "127.0.0.1", resolve));
    const appPort = (app.address() as { port: number }).port;
    const any = { host: "127.0.0.1", port: 0 };
    const others = this.#services.filter(({ name }) => name !== service.name);
    const { accessLog } = options;
    const sidecar = new Sidecar({
      service: { name: service.name, namespace: "prod" },
      app: { host: "127.0.0.1", port: appPort },
      inbound: any,
      outbound: Object.fromEntries(others.map(({ name }) => [name, any])),
      capture: {},
      accessLog: (telemetry) =>
        accessLog === undefined ? null : new AccessLog(accessLog, telemetry.families.dropped.with("log")),
      log: silentLog,
      clock: testClock,
      timeouts: options.timeouts ?? TIMEOUTS,
    });
    await sidecar.listen();
    const member: Member = {
      name: service.name,
      sidecar,
      app,
      appPort,
      seen: "",
      inboundPort: sidecar.address("inbound")?.port as number,
      outboundPort: (name) => sidecar.address(`outbound/${name}`)?.port as number,
    };
    this.members.set(service.name, member);
  }

  #describe(service: TestService): Upstream {
    const { name, protocol = "http" } = service;
    return {
      name,
      namespace: "prod",
      spiffeId: id(name),
      port: 8080,
      protocol,
      labels: { app: name },
      endpoints: [formatAddress({ host: "127.0.0.1", port: this.member(name).inboundPort })],
    };
  }

  snapshot(name: string): Snapshot {
    const service = this.#services.find((one) => one.name === name) as TestService;
    const { port, protocol, labels, spiffeId } = this.#describe(service);
    return {
      version: this.version,
      trustDomain: TRUST_DOMAIN,
      meshConfig: "{}",
      workload: { name, namespace: "prod", serviceAccount: name, labels, spiffeId, port, protocol },
      upstreams: this.#services.filter((one) => one.name !== name).map((one) => this.#describe(one)),
      policies: [],
      keySets: new Map(),
      bundles: this.opaBundles.get(name) ?? new Map(),
      kills: this.kills,
    };
  }

  /** A new snapshot for everyone. */
  push(): void {
    this.version++;
    for (const { name, sidecar } of this.members.values()) {
      sidecar.state.facts.set(makeFacts(this.snapshot(name), this.enforcers.get(name) ?? testEnforcer()));
    }
  }

  async close(): Promise<void> {
    for (const { sidecar, app } of this.members.values()) {
      await sidecar.close(0);
      for (const socket of this.#appSockets) {
        socket.destroy();
      }
      await new Promise<void>((resolve) => {
        app.close(() => resolve());
      });
    }
  }
}
