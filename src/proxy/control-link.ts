/** The sidecar's connection to the control plane: mutual TLS with the sidecar's own SVID, to the server of its trust domain only. */
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { backoffMs } from "../core/base/backoff.ts";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import { serverId, type TrustDomain } from "../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import { bundlesOf, verifyX509Svid } from "../core/spiffe/x509-svid.ts";
import { AggregatedDiscoveryService } from "../gen/envoy/service/discovery/v3/discovery_pb.js";
import { Reports } from "../gen/everyhop/proxy/report_pb.js";
import type { Log } from "../io/log.ts";
import { makeClient } from "../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../io/rpc/channel.ts";

export interface ControlOptions {
  /** `host:port` of each replica of the control plane, at least one. */
  readonly targets: readonly string[];
  readonly trustDomain: TrustDomain;
  /** The sidecar's own SVID and what it believes; both from the Workload API. */
  readonly svid: Cell<X509Svid | null>;
  readonly bundles: Cell<X509Bundles>;
  readonly log: Log;
  readonly clock: Clock;
  readonly random?: () => number;
}

const RETRY = { firstMs: 200, maxMs: 5_000 };
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

export class ControlLink {
  readonly options: ControlOptions;
  readonly #authorities: Cell<readonly Uint8Array[]>;
  readonly #unwatch: () => void;
  #clients: ReturnType<ControlLink["connectClients"]> | null = null;
  #closed = false;
  /** Which of the targets is asked; where to begin is drawn, so that not all sidecars come to the first of one list. */
  #at: number;

  constructor(options: ControlOptions) {
    this.options = options;
    const { bundles, trustDomain, targets, random = Math.random } = options;
    this.#at = Math.floor(random() * targets.length);
    this.#authorities = new Cell<readonly Uint8Array[]>(bundles.value.get(trustDomain) ?? []);
    this.#unwatch = bundles.watch((next) => this.#authorities.set(next.get(trustDomain) ?? []));
  }

  private connectClients() {
    const { targets, svid } = this.options;
    const target = targets[this.#at % targets.length] ?? "";
    const credentials = spiffeCredentials({
      svid,
      authorities: this.#authorities,
      refuse: (chain) => this.#refuse(chain),
    });
    const options = {
      ...SPIFFE_CHANNEL_OPTIONS,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.use_local_subchannel_pool": 1,
    };
    const ads = makeClient(AggregatedDiscoveryService, target, credentials, options);
    return { ads, reports: makeClient(Reports, target, credentials, { ...options, share: ads }) };
  }

  /** INVARIANT: configuration comes from the server of our own trust domain and from nobody else. */
  #refuse(chain: readonly Uint8Array[]): string | null {
    const { bundles, trustDomain, clock } = this.options;
    const verified = verifyX509Svid(chain, bundlesOf(bundles.value), clock.now());
    if (!verified.ok) {
      return verified.message;
    }
    const expected = serverId(trustDomain);
    return verified.id === expected ? null : `\`${verified.id}\` is not \`${expected}\``;
  }

  /** The clients; null while the sidecar has no identity of its own. */
  get clients(): ReturnType<ControlLink["connectClients"]> | null {
    if (this.#clients === null && this.options.svid.value !== null && !this.#closed) {
      this.#clients = this.connectClients();
    }
    return this.#clients;
  }

  /** A stream of these clients was lost: the next one goes to the next replica. RACE: each of two streams says so; one moves on. */
  leave(clients: ControlLink["clients"]): void {
    if (clients !== null && clients === this.#clients && this.options.targets.length > 1 && !this.#closed) {
      this.#at++;
      this.#clients = null;
      clients.ads.close();
    }
  }

  close(): void {
    this.#closed = true;
    this.#unwatch();
    this.#clients?.ads.close();
    this.#clients = null;
  }
}

/** One stream that is opened again, with backoff, for as long as the link lives. */
export class Redial<Request, Response> {
  readonly #link: ControlLink;
  readonly #open: () => ClientDuplexStream<Request, Response> | null;
  readonly #handlers: {
    opened(stream: ClientDuplexStream<Request, Response>): void;
    data(response: Response): void;
    lost(message: string): void;
  };
  #stream: ClientDuplexStream<Request, Response> | null = null;
  #attempt = 0;
  #cancelRetry: (() => void) | null = null;
  #unwatch: (() => void) | null = null;
  #closed = false;

  constructor(
    link: ControlLink,
    open: () => ClientDuplexStream<Request, Response> | null,
    handlers: {
      opened(stream: ClientDuplexStream<Request, Response>): void;
      data(response: Response): void;
      lost(message: string): void;
    },
  ) {
    this.#link = link;
    this.#open = open;
    this.#handlers = handlers;
  }

  start(): void {
    if (this.#closed) {
      return;
    }
    const stream = this.#open();
    if (stream === null) {
      this.#unwatch ??= this.#link.options.svid.watch((svid) => {
        if (svid !== null) {
          this.#unwatch?.();
          this.#unwatch = null;
          this.start();
        }
      });
      return;
    }
    this.#stream = stream;
    const { clients } = this.#link;
    stream.on("data", (response: Response) => {
      this.#attempt = 0;
      if (this.#stream === stream) {
        this.#handlers.data(response);
      }
    });
    stream.on("error", (error) => this.#lost(stream, clients, error.message));
    stream.on("end", () => this.#lost(stream, clients, "the control plane ended the stream"));
    this.#handlers.opened(stream);
  }

  #lost(stream: ClientDuplexStream<Request, Response>, clients: ControlLink["clients"], message: string): void {
    if (this.#stream !== stream) {
      return;
    }
    this.#stream = null;
    stream.cancel();
    this.#link.leave(clients);
    this.#handlers.lost(message);
    const { clock, random = Math.random } = this.#link.options;
    this.#cancelRetry = clock.after(backoffMs(this.#attempt++, RETRY, random()), () => this.start());
  }

  close(): void {
    this.#closed = true;
    this.#cancelRetry?.();
    this.#unwatch?.();
    const stream = this.#stream;
    this.#stream = null;
    stream?.on("error", () => {});
    stream?.cancel();
  }
}
