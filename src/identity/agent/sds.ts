/**
 * Envoy's secret discovery on the Workload API's socket: certificates and validation contexts, to the same attested processes and
 * by the same entries. SPEC: SPIRE, the agent's SDS v3; Envoy, envoy.service.secret.v3. No security header is asked for.
 */
import { randomBytes } from "node:crypto";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { ServerDuplexStream, sendUnaryData } from "@grpc/grpc-js";
import { status as Status } from "@grpc/grpc-js";
import type { Selector } from "../../core/entries/selector.ts";
import {
  type DiscoveryRequest,
  type DiscoveryResponse,
  DiscoveryResponseSchema,
} from "../../gen/envoy/service/discovery/v3/discovery_pb.js";
import { SecretDiscoveryService } from "../../gen/envoy/service/secret/v3/sds_pb.js";
import type { Log } from "../../io/log.ts";
import type { Handlers } from "../../io/rpc/adapter.ts";
import type { Service } from "../../io/rpc/listen.ts";
import { Ended, endOf, unavailable, workloadAttestationEnd } from "./answer.ts";
import type { ProcessWatch } from "./attested.ts";
import type { Entitlement, IdentityCache } from "./cache.ts";
import type { Caller, Callers } from "./callers.ts";
import {
  type Chosen,
  chooseSecrets,
  encodeSecrets,
  type SdsOptions,
  type SecretsWanted,
  secretsKey,
  takesSpiffeValidator,
  wantedBy,
} from "./sds-secrets.ts";
import { type Rendered, serveStream } from "./stream.ts";

export interface SdsServiceOptions {
  readonly sds: SdsOptions;
  readonly cache: IdentityCache;
  readonly processes: ProcessWatch;
  readonly callers: Callers;
  readonly callerOf: (call: { getPeer(): string }) => Caller;
  readonly log: Log;
}

type SecretCall = ServerDuplexStream<DiscoveryRequest, MessageInitShape<typeof DiscoveryResponseSchema>>;

export function sdsService(options: SdsServiceOptions): Service {
  const handlers: Handlers<typeof SecretDiscoveryService> = {
    streamSecrets: (call) => void streamSecrets(call, options),
    fetchSecrets: (call, callback) => void fetchSecrets(call, callback, options),
    deltaSecrets: (call) =>
      void call.emit("error", { code: Status.UNIMPLEMENTED, details: "Method is not implemented" }),
  };
  return { service: SecretDiscoveryService, handlers };
}

async function streamSecrets(call: SecretCall, options: SdsServiceOptions): Promise<void> {
  const { cache, processes, callers, log } = options;
  try {
    const caller = options.callerOf(call);
    const { reference } = caller;
    const lost = (error: unknown) => unattested(reference.pid, error, log).end;
    const onEnd = callers.enterStream(caller);
    try {
      const process = await processes.watch(reference);
      const subscription = new Subscription(options, reference.pid);
      const render = (selectors: readonly Selector[]) => subscription.render(selectors);
      const stream = serveStream({ call, process, cache, render, lost, log, onEnd });
      call.on("data", (request: DiscoveryRequest) => {
        if (subscription.accept(request)) {
          stream.update();
        }
      });
      call.on("end", () => {
        stream.leave();
        call.end();
      });
    } catch (error) {
      onEnd();
      throw new Ended(lost(error));
    }
  } catch (error) {
    call.emit("error", endOf(error));
  }
}

async function fetchSecrets(
  call: { readonly request: DiscoveryRequest; getPeer(): string },
  callback: sendUnaryData<MessageInitShape<typeof DiscoveryResponseSchema>>,
  options: SdsServiceOptions,
): Promise<void> {
  const { cache, processes, callers, sds, log } = options;
  try {
    const caller = options.callerOf(call);
    const leave = callers.enterStream(caller);
    try {
      const attested = processes.attest(caller.reference).catch((error) => {
        throw unattested(caller.reference.pid, error, log);
      });
      const wanted = wantedBy(call.request);
      const chosen = chooseSecrets(wanted, cache.entitlement((await attested).selectors), sds);
      if (chosen === "wait") {
        throw new Ended(unavailable("SVIDs are on their way"));
      }
      const resources = encodeSecrets(chosen, takesSpiffeValidator(call.request.node, sds));
      callback(null, { typeUrl: wanted.typeUrl, resources });
    } finally {
      leave();
    }
  } catch (error) {
    callback(endOf(error));
  }
}

function unattested(pid: number, error: unknown, log: Log): Ended {
  log.warn("a workload could not be attested", { pid, error });
  return new Ended(workloadAttestationEnd(error));
}

/** What one stream last asked for, and was last told. */
class Subscription {
  readonly #options: SdsServiceOptions;
  readonly #pid: number;
  #wanted: SecretsWanted | null = null;
  /** Said in the first request of a stream, as Envoy does; remembered for the others. */
  #spiffeValidator = false;
  /** Grows when a request has to be answered though nothing changed. */
  #asked = 0;
  #version = 0;
  #versionOf: string | null = null;
  #nonce = "";

  constructor(options: SdsServiceOptions, pid: number) {
    this.#options = options;
    this.#pid = pid;
  }

  /** Takes a request; says whether it is to be answered at once. Others are acknowledgements, or late. */
  accept(request: DiscoveryRequest): boolean {
    const { log, sds } = this.#options;
    const { errorDetail, node, responseNonce, versionInfo } = request;
    const pid = this.#pid;
    if (errorDetail !== undefined) {
      log.error("Envoy refuses secrets", { pid, error: errorDetail.message.slice(0, 1_000) });
    }
    if (this.#nonce !== "") {
      if (responseNonce !== this.#nonce) {
        log.warn("a request for secrets with an unexpected nonce is passed over", { pid });
        return false;
      }
      if (versionInfo !== String(this.#version)) {
        // It may ask for other names all the same.
        log.error("Envoy went back to older secrets", { pid, version: versionInfo, expected: this.#version });
      }
    }
    if (node !== undefined) {
      this.#spiffeValidator = takesSpiffeValidator(node, sds);
    }
    const before = this.#wanted;
    this.#wanted = wantedBy(request);
    if (before !== null && sameNames(before.names, this.#wanted.names)) {
      return false;
    }
    log.debug("Envoy asks", { pid, names: [...this.#wanted.names].slice(0, 10) });
    this.#asked += 1;
    return true;
  }

  render(selectors: readonly Selector[]): Rendered {
    const wanted = this.#wanted;
    if (wanted === null) {
      return { kind: "wait" };
    }
    const entitlement = this.#options.cache.entitlement(selectors);
    let chosen: ReturnType<typeof chooseSecrets>;
    try {
      chosen = chooseSecrets(wanted, entitlement, this.#options.sds);
    } catch (error) {
      return { kind: "end", end: endOf(error) };
    }
    if (chosen === "wait") {
      return { kind: "wait" };
    }
    const secrets = chosen;
    const key = `${this.#asked} ${secretsKey(secrets, this.#spiffeValidator)}`;
    return { kind: "message", key, message: () => this.#message(wanted, secrets, entitlement) };
  }

  #message({ typeUrl }: SecretsWanted, secrets: readonly Chosen[], entitlement: Entitlement): Buffer {
    const resources = encodeSecrets(secrets, this.#spiffeValidator);
    const state = stateKey(entitlement);
    if (state !== this.#versionOf) {
      this.#versionOf = state;
      this.#version += 1;
    }
    this.#nonce = randomBytes(4).toString("hex");
    const response: MessageInitShape<typeof DiscoveryResponseSchema> & Partial<DiscoveryResponse> = {
      versionInfo: String(this.#version),
      nonce: this.#nonce,
      typeUrl,
      resources,
    };
    const bytes = toBinary(DiscoveryResponseSchema, create(DiscoveryResponseSchema, response));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

/** All that a workload could be told, whatever it asked for: what versions count. */
function stateKey({ identities, bundles }: Entitlement): string {
  const svids = identities.map(({ entry, svid }) => `${entry.id}/${svid.serial}`);
  return [...svids, ...bundles.map(({ bundle, version }) => `${bundle.trustDomain}@${version}`)].join(" ");
}

function sameNames(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && [...a].every((name) => b.has(name));
}
