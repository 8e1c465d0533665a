/** Follows the sidecar's snapshot over delta ADS. The swap is one assignment; what does not compile is refused, the last one stays. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { SNAPSHOT_TYPE, snapshotName } from "../core/api/snapshot.ts";
import { Cell } from "../core/base/cell.ts";
import { toEveryhopError } from "../core/base/errors.ts";
import type {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponse,
} from "../gen/envoy/service/discovery/v3/discovery_pb.js";
import { type ControlLink, Redial } from "./control-link.ts";

type Request = MessageInitShape<typeof DeltaDiscoveryRequestSchema>;

/** How the configuration stands; `stale`: not connected, the last snapshot is in force. */
export type SubscriptionState =
  | { readonly kind: "waiting" }
  | { readonly kind: "synced" }
  | { readonly kind: "rejected"; readonly message: string }
  | { readonly kind: "stale"; readonly message: string };

export interface SubscribeOptions {
  readonly link: ControlLink;
  readonly service: { readonly name: string; readonly namespace: string };
  /** Puts a snapshot (protobuf bytes) in force; throws where it is not acceptable. */
  readonly apply: (snapshot: Uint8Array) => void;
}

const MAX_ERROR = 4_000;

export class Subscription {
  readonly state: Cell<SubscriptionState> = new Cell<SubscriptionState>({ kind: "waiting" });
  readonly #options: SubscribeOptions;
  readonly #name: string;
  readonly #redial: Redial<Request, DeltaDiscoveryResponse>;
  #stream: ClientDuplexStream<Request, DeltaDiscoveryResponse> | null = null;
  /** The version of the resource in force. */
  #version: string | null = null;

  constructor(options: SubscribeOptions) {
    this.#options = options;
    this.#name = snapshotName(options.service);
    const { link } = options;
    this.#redial = new Redial<Request, DeltaDiscoveryResponse>(
      link,
      () => link.clients?.ads.deltaAggregatedResources() ?? null,
      {
        opened: (stream) => this.#opened(stream),
        data: (response) => this.#take(response),
        lost: (message) => this.#lost(message),
      },
    );
    this.#redial.start();
  }

  #opened(stream: ClientDuplexStream<Request, DeltaDiscoveryResponse>): void {
    this.#stream = stream;
    stream.write({
      node: { id: this.#name },
      typeUrl: SNAPSHOT_TYPE,
      resourceNamesSubscribe: [this.#name],
      initialResourceVersions: this.#version === null ? {} : { [this.#name]: this.#version },
    });
  }

  #take(response: DeltaDiscoveryResponse): void {
    const { log } = this.#options.link.options;
    try {
      for (const { name, version, resource } of response.resources) {
        if (name === this.#name && resource?.typeUrl === SNAPSHOT_TYPE) {
          this.#options.apply(resource.value);
          this.#version = version;
        }
      }
      if (response.removedResources.includes(this.#name)) {
        // INVARIANT: a configuration, once there, is never dropped: that would be a way to switch enforcement off.
        log.warn("the control plane no longer knows this service; its last snapshot stays in force");
      }
    } catch (error) {
      const { message } = toEveryhopError(error);
      log.error("the snapshot is refused; the last one stays in force", { error: message });
      this.state.set({ kind: "rejected", message });
      this.#answer(response.nonce, message.slice(0, MAX_ERROR));
      return;
    }
    if (this.#version !== null) {
      this.state.set({ kind: "synced" });
    }
    this.#answer(response.nonce, null);
  }

  #answer(nonce: string, error: string | null): void {
    this.#stream?.write({
      typeUrl: SNAPSHOT_TYPE,
      responseNonce: nonce,
      ...(error === null ? {} : { errorDetail: { code: 3, message: error } }),
    });
  }

  #lost(message: string): void {
    this.#stream = null;
    const { log } = this.#options.link.options;
    if (this.state.value.kind !== "stale") {
      log.warn("the control plane is away", { error: message, snapshot: this.#version });
    }
    this.state.set({ kind: "stale", message });
  }

  close(): void {
    this.#redial.close();
  }
}
