/**
 * The SPIFFE Broker API on a unix socket, with mutual TLS: a sidecar names its service's process and gets that service's
 * identity; a node's proxy names a Kubernetes object. SPEC: SPIFFE_Broker_API, SPIFFE_Broker_Endpoint.
 *
 * Beyond the specification, a caller has to share the network namespace of the process it names: the sidecar of one
 * isolated service cannot ask for another one's identity, though every sidecar is let in by the same SPIFFE ID.
 */
import type { TLSSocket } from "node:tls";
import type { Metadata, ServerWritableStream, sendUnaryData } from "@grpc/grpc-js";
import { status as Status } from "@grpc/grpc-js";
import type { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Selector } from "../../core/entries/selector.ts";
import { type SpiffeId, spiffeIdFault } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { API, type FetchJWTSVIDRequest, type WorkloadReference } from "../../gen/spiffe/broker/api_pb.js";
import type { Log } from "../../io/log.ts";
import { closePidfd, exitedPidfds, openPidfd } from "../../io/peer.ts";
import { networkNamespace } from "../../io/process.ts";
import type { Handlers } from "../../io/rpc/adapter.ts";
import { listenTls, listenUnixTls, type RpcListener } from "../../io/rpc/listen.ts";
import { peerChain } from "../../io/tls.ts";
import type { ProcessReference } from "../attest/workload/observe.ts";
import { type CallEnd, Ended, endOf, invalid, NO_AUDIENCE, NO_HEADER } from "./answer.ts";
import type { ProcessWatch } from "./attested.ts";
import { type ObjectWatchOptions, watchObject } from "./attested-object.ts";
import { invalidReference, type NamedWorkload, notEntitled, notFound, readReference } from "./broker-reference.ts";
import type { IdentityCache } from "./cache.ts";
import { type Caller, type Callers, LIMITS } from "./callers.ts";
import { nodeFailure } from "./failure.ts";
import type { JwtSvids } from "./jwt-svids.ts";
import { type Renderers, renderers } from "./render.ts";
import { serveStream } from "./stream.ts";
import type { Subject } from "./subject.ts";

/** How Kubernetes objects are found and watched. */
export type KubeObjectsOptions = Pick<ObjectWatchOptions, "objects" | "kube">;

export interface BrokerOptions {
  readonly socket: string;
  /** Where TCP is served too; null: nowhere. */
  readonly listen: { readonly host: string; readonly port: number } | null;
  /** The agent's own SVID, by which brokers know it. */
  readonly svid: Cell<X509Svid>;
  /** Who may ask. */
  readonly brokers: ReadonlySet<SpiffeId>;
  readonly cache: IdentityCache;
  readonly processes: ProcessWatch;
  /** Null: Kubernetes objects are no references here. */
  readonly kubeObjects: KubeObjectsOptions | null;
  readonly jwtSvids: JwtSvids;
  readonly callers: Callers;
  readonly clock: Clock;
  readonly log: Log;
}

export interface BrokerCaller {
  /** Its process; null over TCP, where the kernel does not say. */
  readonly reference: Caller["reference"] | null;
  /** Whether it is on this machine: elsewhere the ids of our processes mean nothing. */
  readonly local: boolean;
  readonly id: SpiffeId;
  readonly chain: readonly Uint8Array[];
  readonly notAfterMs: number;
}

export interface BrokerEndpoints {
  readonly address: string;
  /** `host:port`, or null: TCP is not served. */
  readonly tcpAddress: string | null;
  close(): Promise<void>;
}

const SOCKET_MODE = 0o777;
/** How often connections are looked at for certificates that have expired meanwhile. */
const EXPIRY_CHECK_MS = 500;

/** Serves until closed. Errors: `port-in-use`, `unavailable`. */
export async function serveBroker(options: BrokerOptions): Promise<BrokerEndpoints> {
  const { cache, clock } = options;
  const unix = await listenOnSocket(options);
  const tcp = options.listen === null ? null : await listenOnTcp(options, options.listen);
  const listeners = tcp === null ? [unix] : [unix, tcp];
  const disconnect = (which: (caller: BrokerCaller) => boolean) => {
    for (const listener of listeners) {
      listener.disconnect(which);
    }
  };
  const unwatch = cache.changed.watch(() =>
    disconnect(({ chain }) => !verifyX509Svid(chain, (name) => cache.bundleOf(name), clock.now()).ok),
  );
  let cancel = (): void => {};
  const check = () => {
    disconnect(({ notAfterMs }) => notAfterMs <= clock.now());
    cancel = clock.after(EXPIRY_CHECK_MS, check);
  };
  check();
  return {
    address: unix.address,
    tcpAddress: tcp?.address ?? null,
    async close() {
      unwatch();
      cancel();
      await Promise.all(listeners.map((listener) => listener.close()));
    },
  };
}

async function listenOnSocket(options: BrokerOptions): Promise<RpcListener<BrokerCaller>> {
  const { callers } = options;
  const api = new BrokerApi(options, (call) => listener.peerOf(call));
  const listener = await listenUnixTls<BrokerCaller, Caller>(options.socket, SOCKET_MODE, options.svid, {
    services: [{ service: API, handlers: api.handlers() }],
    admit: (socket) => {
      const caller = callers.admit(socket);
      socket.once("close", () => callers.forget(caller));
      return caller;
    },
    identify: (socket, { reference }) => ({ reference, local: true, ...prove(options, socket) }),
    onRefused: (error) => options.log.warn("refused a broker's connection", { error }),
    ...LIMITS,
  });
  return listener;
}

/** SPEC: Broker Endpoint §3: TCP is for where no socket can be shared; who asks is who its SVID says. */
async function listenOnTcp(
  options: BrokerOptions,
  address: { readonly host: string; readonly port: number },
): Promise<RpcListener<BrokerCaller>> {
  const api = new BrokerApi(options, (call) => listener.peerOf(call));
  const listener = await listenTls<BrokerCaller>(address, options.svid, {
    services: [{ service: API, handlers: api.handlers() }],
    identify: (socket) => ({
      reference: null,
      local: LOOPBACK.test(socket.remoteAddress ?? ""),
      ...prove(options, socket),
    }),
    onRefused: (error) => options.log.warn("refused a broker's connection", { error }),
    ...LIMITS,
  });
  return listener;
}

const LOOPBACK = /^(::ffff:)?127\.|^::1$/;

function prove({ cache, clock }: BrokerOptions, socket: TLSSocket) {
  const chain = peerChain(socket);
  const verified = verifyX509Svid(chain, (name) => cache.bundleOf(name), clock.now());
  if (!verified.ok) {
    throw new EveryhopError("unauthenticated", `a broker did not prove who it is: ${verified.message}`);
  }
  return { id: verified.id, chain, notAfterMs: verified.notAfterMs };
}

type AnyCall = { readonly metadata: Metadata; getPeer(): string };
type ReferenceOptions = { readonly reference?: WorkloadReference | undefined };

class BrokerApi {
  readonly #options: BrokerOptions;
  readonly #callerOf: (call: AnyCall) => BrokerCaller;

  constructor(options: BrokerOptions, callerOf: (call: AnyCall) => BrokerCaller) {
    this.#options = options;
    this.#callerOf = callerOf;
  }

  handlers(): Handlers<typeof API> {
    return {
      subscribeToX509SVID: (call) => void this.#stream(call, "x509Svids"),
      subscribeToX509Bundles: (call) => void this.#stream(call, "x509Bundles"),
      subscribeToJWTBundles: (call) => void this.#stream(call, "jwtBundles"),
      fetchJWTSVID: (call, callback) => void this.#fetchJwt(call, callback),
    };
  }

  async #stream(call: ServerWritableStream<ReferenceOptions, unknown>, kind: keyof Renderers): Promise<void> {
    const { cache, log } = this.#options;
    try {
      const held = this.#resolve(call, call.request.reference);
      const { named } = held;
      const lost = (error: unknown) => this.#lost(named, error);
      const leave = this.#enterStream(call, held);
      const onEnd = () => {
        leave();
        held.release();
      };
      try {
        const process = await held.watch();
        log.debug("a broker asks", { ...named, broker: this.#callerOf(call).id });
        const render = renderers(cache, () => notEntitled(named))[kind];
        serveStream({ call, process, cache, render, lost, log, onEnd });
      } catch (error) {
        onEnd();
        throw new Ended(lost(error));
      }
    } catch (error) {
      call.emit("error", endOf(error));
    }
  }

  #enterStream(call: AnyCall, held: Held): () => void {
    try {
      return this.#options.callers.enterStream(this.#callerOf(call));
    } catch (error) {
      held.release();
      throw error;
    }
  }

  async #fetchJwt(
    call: AnyCall & { readonly request: FetchJWTSVIDRequest },
    callback: sendUnaryData<{ svids: { spiffeId: string; svid: string; hint: string }[] }>,
  ): Promise<void> {
    try {
      callback(null, { svids: await this.#jwtSvids(call, call.request) });
    } catch (error) {
      callback(endOf(error));
    }
  }

  async #jwtSvids(call: AnyCall, request: FetchJWTSVIDRequest) {
    const { cache, jwtSvids, log } = this.#options;
    requireHeader(call);
    if (request.audience.length === 0 || request.audience.includes("")) {
      throw new Ended(NO_AUDIENCE);
    }
    if (request.spiffeId !== "" && spiffeIdFault(request.spiffeId) !== null) {
      throw new Ended(invalid("invalid requested SPIFFE ID"));
    }
    const held = this.#resolve(call, request.reference);
    const leave = this.#enterStream(call, held);
    const selectors = await held
      .attest()
      .catch((error) => {
        throw new Ended(this.#lost(held.named, error));
      })
      .finally(() => {
        leave();
        held.release();
      });
    const entries = cache
      .named(selectors)
      .filter(({ spiffeId }) => request.spiffeId === "" || request.spiffeId === spiffeId);
    if (entries.length === 0) {
      throw new Ended(notEntitled(held.named));
    }
    try {
      return await Promise.all(
        entries.map(async (entry) => ({
          spiffeId: entry.spiffeId as string,
          svid: await jwtSvids.token(entry, request.audience),
          hint: entry.hint,
        })),
      );
    } catch (thrown) {
      log.warn("no JWT-SVID", { error: nodeFailure(thrown).error });
      throw new Ended({ code: Status.UNAVAILABLE, details: "could not fetch JWT-SVID" });
    }
  }

  /** The workload that a call names, where the caller may name it; to be released by the caller of this. */
  #resolve(call: AnyCall, wanted: WorkloadReference | undefined): Held {
    requireHeader(call);
    const caller = this.#callerOf(call);
    if (!this.#options.brokers.has(caller.id)) {
      this.#options.log.warn("not a broker", { spiffeId: caller.id });
      throw new Ended({ code: Status.PERMISSION_DENIED, details: `\`${caller.id}\` is not a broker` });
    }
    const named = readReference(wanted);
    return named.kind === "process" ? this.#holdProcess(caller, named) : this.#holdObject(caller, named);
  }

  #holdProcess(caller: BrokerCaller, named: NamedWorkload & { readonly kind: "process" }): Held {
    const { processes } = this.#options;
    if (!caller.local) {
      throw new Ended(invalidReference("a process id means nothing from another machine"));
    }
    const reference = { pid: named.pid, pidfd: openPidfd(named.pid), caller: null };
    try {
      this.#requireSameNamespace(caller, reference);
    } catch (error) {
      closeReference(reference);
      throw error;
    }
    return {
      named,
      watch: () => processes.watch(reference),
      attest: async () => (await processes.attest(reference)).selectors,
      release: () => closeReference(reference),
    };
  }

  #holdObject(caller: BrokerCaller, named: NamedWorkload & { readonly kind: "object" }): Held {
    const { kubeObjects, clock, log } = this.#options;
    if (kubeObjects === null) {
      throw new Ended(invalidReference("Kubernetes objects are not known here: the agent has no `k8s.broker`"));
    }
    return {
      named,
      watch: () => watchObject({ ...kubeObjects, clock, log }, named.reference, caller.id),
      attest: async () => (await kubeObjects.objects.resolve(named.reference, caller.id)).selectors,
      release: () => {},
    };
  }

  /** Over TCP the kernel does not say where the caller is: whoever is let in there may name every process of the machine. */
  #requireSameNamespace({ id, reference }: BrokerCaller, { pid, pidfd }: ProcessReference): void {
    const isGone = (fd: number | null | undefined) => fd !== null && fd !== undefined && exitedPidfds([fd])[0] === true;
    const named = networkNamespace(pid);
    if (isGone(reference?.pidfd)) {
      throw new Ended({ code: Status.UNAUTHENTICATED, details: "the calling process is gone" });
    }
    if (isGone(pidfd) || (named === null && pidfd === null)) {
      throw new Ended(notFound({ kind: "process", pid }));
    }
    const own = reference === null ? named : networkNamespace(reference.pid);
    if (own === null || own !== named) {
      const brokerPid = reference?.pid ?? null;
      this.#options.log.warn("a broker names a process of another network namespace", { broker: id, brokerPid, pid });
      throw new Ended(notFound({ kind: "process", pid }));
    }
  }

  #lost(named: NamedWorkload, error: unknown): CallEnd {
    this.#options.log.debug("a named workload could not be attested", { ...named, error });
    const code = error instanceof EveryhopError ? error.code : null;
    if (code === "not-found" || (named.kind === "process" && code === "permission-denied")) {
      return notFound(named);
    }
    if (code === "invalid-argument") {
      return invalidReference((error as EveryhopError).message);
    }
    return code === "permission-denied"
      ? { code: Status.PERMISSION_DENIED, details: "the broker may not name this object" }
      : { code: Status.UNAVAILABLE, details: "workload attestation failed" };
  }
}

/** A workload that a call names, for as long as the call needs it. */
interface Held {
  readonly named: NamedWorkload;
  watch(): Promise<Subject>;
  attest(): Promise<readonly Selector[]>;
  release(): void;
}

function closeReference({ pidfd }: ProcessReference): void {
  if (pidfd !== null) {
    closePidfd(pidfd);
  }
}

/** SPEC: Broker Endpoint §3: `broker.spiffe.io: true`, exactly. */
function requireHeader(call: { readonly metadata: Metadata }): void {
  const values = call.metadata.get("broker.spiffe.io");
  if (values.length !== 1 || values[0] !== "true") {
    throw new Ended(NO_HEADER);
  }
}
