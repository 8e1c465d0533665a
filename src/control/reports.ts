/** What sidecars tell of themselves: denials, which kill orders they have carried out, the identity they serve with. */
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import type { DenialDocument, DryRunStatus, NearestMiss } from "../core/api/admin.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { onlyOne } from "../core/policy/nearest/changes.ts";
import { type SpiffeId, spiffeIdFault } from "../core/spiffe/id.ts";
import type {
  DenialSchema,
  DryRunCountSchema,
  IdentitySchema,
  ReportReplySchema,
  ReportSchema,
  Reports as ReportsService,
} from "../gen/everyhop/proxy/report_pb.js";
import type { Handlers } from "../io/rpc/adapter.ts";
import { toStatus } from "../io/rpc/errors.ts";
import { Denials } from "./denials.ts";

type Report = MessageShape<typeof ReportSchema>;
type Call = ServerDuplexStream<Report, MessageInitShape<typeof ReportReplySchema>>;

export interface ReportedIdentity {
  readonly spiffeId: SpiffeId;
  readonly serial: string;
  readonly notBefore: number;
  readonly notAfter: number;
}

interface ReportsOptions {
  readonly isNode: (node: string) => boolean;
  /** Whether this kill order is in force. */
  readonly isOrder: (order: string) => boolean;
  readonly now: () => number;
  readonly onReceipt: (node: string) => void;
  /** A sidecar saw a token whose key is not in this key set. */
  readonly onWanted: (uri: string) => void;
}

const MAX_STREAMS_PER_NODE = 64;

/** One stream: order → connections closed for it. */
interface ReportStream {
  readonly node: string;
  readonly receipts: Map<string, number>;
  dryRuns: readonly DryRunStatus[];
}

export class Reports {
  readonly denials = new Denials();
  readonly #options: ReportsOptions;
  readonly #streams = new Map<string, Set<ReportStream>>();
  readonly #identities = new Map<string, ReportedIdentity | null>();

  constructor(options: ReportsOptions) {
    this.#options = options;
  }

  handlers(): Handlers<typeof ReportsService> {
    return { stream: (call) => this.#serve(call) };
  }

  /** What the sidecars of `node` serve with; null where they have none, or have not said. */
  identityOf(node: string): ReportedIdentity | null {
    return this.#identities.get(node) ?? null;
  }

  /** Connections that `node` closed for `order`, if every sidecar of it has reported on it; else null. */
  receiptOf(node: string, order: string): number | null {
    const receipts = [...(this.#streams.get(node) ?? [])].map((stream) => stream.receipts.get(order));
    return receipts.length === 0 || receipts.includes(undefined)
      ? null
      : receipts.reduce<number>((sum, closed) => sum + (closed ?? 0), 0);
  }

  /** What dry-run policies would have changed, over all sidecars that report; most often first. */
  dryRuns(): readonly DryRunStatus[] {
    const sums = new Map<string, DryRunStatus>();
    for (const stream of [...this.#streams.values()].flatMap((streams) => [...streams])) {
      for (const given of stream.dryRuns) {
        const key = JSON.stringify([stream.node, given.policy, given.enforced, given.would]);
        sums.set(key, { ...given, count: (sums.get(key)?.count ?? 0) + given.count });
      }
    }
    return [...sums.values()].sort((a, b) => b.count - a.count);
  }

  /** Whether a sidecar of `node` is there to report. */
  isReporting(node: string): boolean {
    return this.#streams.has(node);
  }

  /** Forgets the services that are no more, and the orders that are undone. */
  keepOnly(nodes: ReadonlySet<string>): void {
    this.denials.keepOnly(nodes);
    for (const node of this.#identities.keys()) {
      if (!nodes.has(node)) {
        this.#identities.delete(node);
      }
    }
    for (const { receipts } of [...this.#streams.values()].flatMap((streams) => [...streams])) {
      for (const order of receipts.keys()) {
        if (!this.#options.isOrder(order)) {
          receipts.delete(order);
        }
      }
    }
  }

  #serve(call: Call): void {
    let stream: ReportStream | null = null;
    const close = (): void => {
      if (stream !== null) {
        const streams = this.#streams.get(stream.node);
        streams?.delete(stream);
        if (streams?.size === 0) {
          this.#streams.delete(stream.node);
        }
      }
    };
    call.on("data", (report: Report) => {
      try {
        stream ??= this.#open(report.node);
        this.#take(stream, report);
      } catch (error) {
        call.emit("error", toStatus(error));
      }
    });
    call.on("end", () => {
      close();
      call.end();
    });
    for (const event of ["cancelled", "error", "close"]) {
      call.on(event, close);
    }
  }

  #open(node: string): ReportStream {
    if (!this.#options.isNode(node)) {
      throw new EveryhopError("not-found", `no service \`${node.slice(0, 256)}\` is registered in this mesh`, {
        hint: "the first report of a stream carries `node`: `<namespace>/<service>`",
      });
    }
    const streams = this.#streams.get(node) ?? new Set();
    if (streams.size >= MAX_STREAMS_PER_NODE) {
      throw new EveryhopError("resource-exhausted", `more than ${MAX_STREAMS_PER_NODE} report streams for \`${node}\``);
    }
    const stream: ReportStream = { node, receipts: new Map<string, number>(), dryRuns: [] };
    this.#streams.set(node, streams.add(stream));
    return stream;
  }

  #take(stream: ReportStream, report: Report): void {
    const { isOrder, now, onReceipt, onWanted } = this.#options;
    const service = stream.node.slice(stream.node.indexOf("/") + 1);
    this.denials.add(
      stream.node,
      report.denials.filter(({ id }) => /^[\w.-]{1,64}$/.test(id)).map((denial) => readDenial(denial, service, now())),
    );
    for (const { order, connectionsClosed } of report.receipts) {
      // RACE: a receipt may cross the restore of its order; it is of no use then, and must not be kept for ever.
      if (isOrder(order)) {
        stream.receipts.set(order, connectionsClosed);
        onReceipt(stream.node);
      }
    }
    report.wantedKeySets.slice(0, MAX_WANTED).forEach(onWanted);
    if (report.dryRuns !== undefined) {
      stream.dryRuns = report.dryRuns.counts.slice(0, MAX_DRY_RUNS).flatMap((count) => readDryRun(count, service));
    }
    if (report.identity !== undefined) {
      this.#identities.set(stream.node, readIdentity(report.identity));
    }
  }
}

const MAX_DRY_RUNS = 1_000;
const MAX_WANTED = 16;

function readDryRun(given: MessageShape<typeof DryRunCountSchema>, service: string): DryRunStatus[] {
  const { enforced, would, policy, count } = given;
  const isDecision = (word: string): word is "allow" | "deny" => word === "allow" || word === "deny";
  return isDecision(enforced) && isDecision(would)
    ? [{ service, policy: orNull(policy, 512), enforced, would, count }]
    : [];
}

function readIdentity(identity: MessageShape<typeof IdentitySchema>): ReportedIdentity | null {
  const { spiffeId, serial, notBefore, notAfter } = identity;
  if (spiffeIdFault(spiffeId) !== null || notBefore === undefined || notAfter === undefined) {
    return null;
  }
  return {
    spiffeId: spiffeId as SpiffeId,
    serial: clip(serial, 64),
    notBefore: timestampMs(notBefore),
    notAfter: timestampMs(notAfter),
  };
}

function readDenial(denial: MessageShape<typeof DenialSchema>, destination: string, now: number): DenialDocument {
  const { id, source, sourceIp, port, method, path, host, reason, policy, rule, nearestMiss } = denial;
  return {
    id,
    time: readTime(denial.time, now),
    source: spiffeIdFault(source) === null ? source : null,
    sourceIp: orNull(sourceIp, 64),
    destination,
    port,
    method: orNull(method, 64),
    path: orNull(path, 2_048),
    host: orNull(host, 255),
    reason: clip(reason, 64),
    policy: orNull(policy, 512),
    rule: rule ?? null,
    snapshotVersion: denial.snapshotVersion,
    ...readChanges(nearestMiss),
  };
}

function readTime(time: Timestamp | undefined, now: number): string {
  const ms = time === undefined ? now : timestampMs(time);
  return new Date(Math.abs(ms) <= 8.64e15 ? ms : now).toISOString();
}

const MAX_NEAREST_MISS = 16_384;

function readChanges(text: string): Pick<DenialDocument, "nearestMiss" | "changes"> {
  const none = { nearestMiss: null, changes: [] };
  if (text === "" || text.length > MAX_NEAREST_MISS) {
    return none;
  }
  try {
    const given: unknown = JSON.parse(text);
    const changes = (Array.isArray(given) ? given : [given]).map(readChange);
    const whole = changes.filter((change) => change !== null);
    return whole.length < changes.length ? none : { nearestMiss: onlyOne(whole), changes: whole };
  } catch {
    return none;
  }
}

function readChange(given: Partial<NearestMiss> | null): NearestMiss | null {
  const { kind, policy, rule, would, patch } = given ?? {};
  const whole = typeof kind === "string" && typeof policy === "string" && typeof would === "string";
  const isRule = rule === null || typeof rule === "number";
  return whole && isRule && Array.isArray(patch) ? { kind, policy, rule, would, patch } : null;
}

const clip = (text: string, length: number): string => text.slice(0, length);
const orNull = (text: string, length: number): string | null => (text === "" ? null : clip(text, length));
