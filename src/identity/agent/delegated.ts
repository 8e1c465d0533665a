/**
 * SPIRE's Delegated Identity API on the agent's admin socket: processes that act for others (a node's proxy) get those others'
 * identities, by selectors or by process id. SPEC: SPIRE, spire.api.agent.delegatedidentity.v1.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type ServerWritableStream, status as Status, type sendUnaryData } from "@grpc/grpc-js";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { makeSelector, type Selector } from "../../core/entries/selector.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import {
  DelegatedIdentity,
  type FetchJWTSVIDsRequest,
  type FetchJWTSVIDsResponseSchema,
  type SubscribeToX509SVIDsRequest,
} from "../../gen/spire/api/agent/delegatedidentity/v1/delegatedidentity_pb.js";
import type { Log } from "../../io/log.ts";
import { closePidfd, openPidfd } from "../../io/peer.ts";
import type { Handlers } from "../../io/rpc/adapter.ts";
import type { Service } from "../../io/rpc/listen.ts";
import { type CallEnd, Ended, endOf, invalid, NO_AUDIENCE, NO_IDENTITY, unavailable } from "./answer.ts";
import type { AttestedProcess, ProcessWatch } from "./attested.ts";
import type { IdentityCache } from "./cache.ts";
import type { Caller, Callers } from "./callers.ts";
import { allJwtBundles, allX509Bundles, delegatedX509Svids, idMessage } from "./delegated-render.ts";
import { nodeFailure } from "./failure.ts";
import type { JwtSvids } from "./jwt-svids.ts";
import { type Rendered, serveStream } from "./stream.ts";
import type { Subject } from "./subject.ts";

export interface DelegatedOptions {
  /** Who may act for others: a caller that an entry gives one of these. */
  readonly delegates: ReadonlySet<SpiffeId>;
  readonly cache: IdentityCache;
  readonly processes: ProcessWatch;
  readonly jwtSvids: JwtSvids;
  readonly callers: Callers;
  readonly callerOf: (call: { getPeer(): string }) => Caller;
  readonly log: Log;
}

const NOT_A_DELEGATE: CallEnd = {
  code: Status.PERMISSION_DENIED,
  details: "caller not configured as an authorized delegate",
};
const NOT_ATTESTED: CallEnd = { code: Status.INTERNAL, details: "workload attestation failed" };
const ONE_OF_TWO = "must provide either selectors or non-zero PID, but not both";

type Named = Pick<SubscribeToX509SVIDsRequest, "selectors" | "pid">;
type Stream = ServerWritableStream<unknown, unknown>;

export function delegatedService(options: DelegatedOptions): Service {
  const { cache } = options;
  const api = new DelegatedApi(options);
  const handlers: Handlers<typeof DelegatedIdentity> = {
    subscribeToX509SVIDs: (call) =>
      void api.stream(call, call.request, (selectors) => delegatedX509Svids(cache.entitlement(selectors))),
    subscribeToX509Bundles: (call) => void api.stream(call, null, () => allX509Bundles(cache)),
    subscribeToJWTBundles: (call) => void api.stream(call, null, () => allJwtBundles(cache)),
    fetchJWTSVIDs: (call, callback) => void api.fetchJwt(call, callback),
  };
  return { service: DelegatedIdentity, handlers };
}

/** INVARIANT: nobody acts for an administrator or a downstream server. */
const isDelegable = ({ admin, downstream }: RegistrationEntry): boolean => !admin && !downstream;

class DelegatedApi {
  readonly #options: DelegatedOptions;

  constructor(options: DelegatedOptions) {
    this.#options = options;
  }

  async stream(call: Stream, named: Named | null, render: (selectors: readonly Selector[]) => Rendered): Promise<void> {
    const { cache, processes, callers, callerOf, log } = this.#options;
    const closers: (() => void)[] = [];
    const onEnd = () => {
      for (const close of closers.splice(0)) {
        close();
      }
    };
    try {
      const caller = callerOf(call);
      closers.push(callers.enterStream(caller));
      const own = await this.#attested(() => processes.watch(caller.reference));
      closers.push(() => own.close());
      this.#authorise(own.attestation.selectors);
      const target = named === null ? null : await this.#target(named, closers);
      const process = new OnBehalf(own, target, (selectors) => this.#authorise(selectors));
      const lost = (error: unknown) => {
        log.debug("a delegate, or whom it asks for, could not be attested", { pid: caller.reference.pid, error });
        return NOT_ATTESTED;
      };
      serveStream({ call, process, cache, render, lost, log, onEnd });
    } catch (error) {
      onEnd();
      call.emit("error", endOf(error));
    }
  }

  async fetchJwt(
    call: { readonly request: FetchJWTSVIDsRequest; getPeer(): string },
    callback: sendUnaryData<MessageInitShape<typeof FetchJWTSVIDsResponseSchema>>,
  ): Promise<void> {
    const closers: (() => void)[] = [];
    try {
      callback(null, { svids: await this.#jwtSvids(call, call.request, closers) });
    } catch (error) {
      callback(endOf(error));
    } finally {
      for (const close of closers) {
        close();
      }
    }
  }

  async #jwtSvids(call: { getPeer(): string }, request: FetchJWTSVIDsRequest, closers: (() => void)[]) {
    const { cache, processes, jwtSvids, callers, callerOf, log } = this.#options;
    if (request.audience.length === 0 || request.audience.includes("")) {
      throw new Ended(NO_AUDIENCE);
    }
    const caller = callerOf(call);
    closers.push(callers.enterStream(caller));
    const { selectors } = await this.#attested(() => processes.attest(caller.reference));
    this.#authorise(selectors);
    const target = await this.#target(request, closers);
    const entries = cache.named(target.attestation.selectors).filter(isDelegable);
    if (entries.length === 0) {
      throw new Ended(NO_IDENTITY);
    }
    const svids = entries.map(async (entry) => {
      const { token, issuedAtMs, expiresAtMs } = await jwtSvids.svid(entry, request.audience);
      const seconds = (ms: number) => BigInt(Math.floor(ms / 1_000));
      const times = { issuedAt: seconds(issuedAtMs), expiresAt: seconds(expiresAtMs) };
      return { token, id: idMessage(entry.spiffeId), hint: entry.hint, ...times };
    });
    return Promise.all(svids).catch((thrown) => {
      log.warn("no JWT-SVID", { error: nodeFailure(thrown).error });
      throw new Ended(unavailable("could not fetch JWT-SVID"));
    });
  }

  #authorise(selectors: readonly Selector[]): void {
    const entries = this.#options.cache.matching(selectors);
    if (entries.length === 0) {
      throw new Ended(NO_IDENTITY);
    }
    if (!entries.some(({ spiffeId }) => this.#options.delegates.has(spiffeId))) {
      throw new Ended(NOT_A_DELEGATE);
    }
  }

  /** Whom the request names. What has to be closed after it is put into `closers`. */
  async #target({ selectors, pid }: Named, closers: (() => void)[]): Promise<Subject> {
    if (selectors.length > 0 === (pid !== 0)) {
      throw new Ended(invalid(ONE_OF_TWO));
    }
    if (selectors.length > 0) {
      return described(selectors);
    }
    if (pid < 0) {
      throw new Ended(invalid("the process id must be positive"));
    }
    const pidfd = openPidfd(pid);
    if (pidfd !== null) {
      closers.push(() => closePidfd(pidfd));
    }
    const process = await this.#attested(() => this.#options.processes.watch({ pid, pidfd, caller: null }));
    closers.push(() => process.close());
    return process;
  }

  async #attested<T>(attest: () => Promise<T>): Promise<T> {
    try {
      return await attest();
    } catch (error) {
      this.#options.log.warn("a process could not be attested for a delegate", { error });
      throw new Ended(NOT_ATTESTED);
    }
  }
}

/** What a delegate says of a workload; it is believed, and there is nothing to look at. */
function described(given: Named["selectors"]): Subject {
  let selectors: readonly Selector[];
  try {
    selectors = given.map(({ type, value }) => makeSelector(type, value));
  } catch {
    throw new Ended(invalid("could not parse provided selectors"));
  }
  const attestation = { selectors };
  return { stale: false, attestation, current: async () => attestation, onSuspicion: () => () => {}, close() {} };
}

/** A process that asks for another: both are looked at, and the other's identities are what is told. */
class OnBehalf implements Subject {
  readonly #caller: AttestedProcess;
  readonly #target: Subject;
  readonly #authorise: (selectors: readonly Selector[]) => void;

  constructor(caller: AttestedProcess, target: Subject | null, authorise: (selectors: readonly Selector[]) => void) {
    this.#caller = caller;
    this.#target = target ?? caller;
    this.#authorise = authorise;
  }

  get attestation() {
    return this.#target.attestation;
  }

  /** An entry that made it a delegate may be gone: then nothing known of it holds. */
  get stale(): boolean {
    try {
      this.#authorise(this.#caller.attestation.selectors);
      return this.#caller.stale || this.#target.stale;
    } catch {
      return true;
    }
  }

  async current() {
    this.#authorise((await this.#caller.current()).selectors);
    return this.#target.current();
  }

  onSuspicion(tell: () => void): () => void {
    const ends = [this.#caller.onSuspicion(tell), this.#target.onSuspicion(tell)];
    return () => {
      for (const end of ends) {
        end();
      }
    };
  }

  close(): void {}
}
