/** Tells the control plane what happened here: denials in batches, kill receipts and the identity in use at once. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { snapshotName } from "../core/api/snapshot.ts";
import type { Cell } from "../core/base/cell.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import type { ReportReply, ReportSchema } from "../gen/everyhop/proxy/report_pb.js";
import { type ControlLink, Redial } from "./control-link.ts";
import type { DenialRecord, Denials } from "./denials.ts";
import type { DryRuns } from "./dry-runs.ts";
import type { KillReceipt } from "./sidecar.ts";

type Report = MessageInitShape<typeof ReportSchema>;

const BATCH = 200;
const BATCH_MS = 100;
const DRY_RUNS_MS = 500;

export interface ReportsOptions {
  readonly link: ControlLink;
  readonly service: { readonly name: string; readonly namespace: string };
  readonly denials: Denials;
  readonly dryRuns: DryRuns;
  readonly svid: Cell<X509Svid | null>;
}

export class Reporter {
  readonly #options: ReportsOptions;
  readonly #redial: Redial<Report, ReportReply>;
  /** Of the orders in force: told again on each new stream, since the control plane counts by stream. */
  #receipts = new Map<string, number>();
  #stream: ClientDuplexStream<Report, ReportReply> | null = null;
  #full = false;
  #cancelBatch: (() => void) | null = null;
  #cancelDryRuns: (() => void) | null = null;
  readonly #unwatch: () => void;

  constructor(options: ReportsOptions) {
    this.#options = options;
    const { link, denials, dryRuns, svid } = options;
    this.#redial = new Redial<Report, ReportReply>(link, () => link.clients?.reports.stream() ?? null, {
      opened: (stream) => this.#opened(stream),
      data: () => {},
      lost: () => {
        this.#stream = null;
      },
    });
    denials.listen(() => this.#batch());
    dryRuns.listen(() => this.#tellDryRuns());
    this.#unwatch = svid.watch((next) => this.#send({ identity: identityOf(next) }));
    this.#redial.start();
  }

  /** An order was carried out. */
  receipt(receipt: KillReceipt): void {
    this.#receipts.set(receipt.order, receipt.connectionsClosed);
    this.#send({ receipts: [receipt] });
  }

  /** A token came whose key is not in this key set. */
  wantKeys(uri: string): void {
    this.#send({ wantedKeySets: [uri] });
  }

  /** Forgets receipts of orders that are no longer in force. */
  keepOrders(orders: ReadonlySet<string>): void {
    this.#receipts = new Map([...this.#receipts].filter(([order]) => orders.has(order)));
  }

  #opened(stream: ClientDuplexStream<Report, ReportReply>): void {
    this.#stream = stream;
    this.#full = false;
    stream.on("drain", () => {
      this.#full = false;
      this.#batch();
    });
    this.#send({
      node: snapshotName(this.#options.service),
      identity: identityOf(this.#options.svid.value),
      receipts: [...this.#receipts].map(([order, connectionsClosed]) => ({ order, connectionsClosed })),
      dryRuns: this.#dryRuns(),
    });
    this.#batch();
  }

  #send(report: Report): void {
    if (this.#stream !== null && !this.#stream.write(report)) {
      this.#full = true;
    }
  }

  /** Denials go out a moment after the first of them, together with those that came meanwhile. */
  #batch(): void {
    const { clock } = this.#options.link.options;
    this.#cancelBatch ??= clock.after(BATCH_MS, () => {
      this.#cancelBatch = null;
      if (this.#stream === null || this.#full) {
        return;
      }
      const records = this.#options.denials.take(BATCH);
      if (records.length > 0) {
        this.#send({ denials: records.map(toMessage) });
      }
      if (records.length === BATCH) {
        this.#batch();
      }
    });
  }

  /** The counts as they are, a moment after the first change. */
  #tellDryRuns(): void {
    const { clock } = this.#options.link.options;
    this.#cancelDryRuns ??= clock.after(DRY_RUNS_MS, () => {
      this.#cancelDryRuns = null;
      this.#send({ dryRuns: this.#dryRuns() });
    });
  }

  #dryRuns(): NonNullable<Report["dryRuns"]> {
    return { counts: this.#options.dryRuns.counts.map((count) => ({ ...count, policy: count.policy ?? "" })) };
  }

  close(): void {
    this.#unwatch();
    this.#options.denials.listen(null);
    this.#options.dryRuns.listen(null);
    this.#cancelBatch?.();
    this.#cancelDryRuns?.();
    this.#redial.close();
  }
}

function identityOf(svid: X509Svid | null): NonNullable<Report["identity"]> {
  return svid === null
    ? {}
    : {
        spiffeId: svid.id,
        serial: svid.serial,
        notBefore: timestampFromMs(svid.notBefore),
        notAfter: timestampFromMs(svid.notAfter),
      };
}

function toMessage(record: DenialRecord): NonNullable<Report["denials"]>[number] {
  const { request, verdict, changes } = record;
  return {
    id: record.id,
    time: timestampFromMs(record.timeMs),
    source: record.source ?? "",
    sourceIp: record.sourceIp,
    port: record.port,
    method: request?.method ?? "",
    path: request?.path ?? "",
    host: request?.host ?? "",
    reason: verdict.reason,
    policy: verdict.policy ?? "",
    ...(verdict.rule === null ? {} : { rule: verdict.rule }),
    nearestMiss: changes.length === 0 ? "" : JSON.stringify(changes),
    snapshotVersion: record.snapshotVersion,
  };
}
