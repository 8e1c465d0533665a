/** The SPIFFE Workload API on a unix socket, and beside it Envoy's SDS. SPEC: SPIFFE_Workload_API, SPIFFE_Workload_Endpoint. */
import type { JsonObject } from "@bufbuild/protobuf";
import type { Metadata, ServerWritableStream, sendUnaryData } from "@grpc/grpc-js";
import { status as Status } from "@grpc/grpc-js";
import type { Clock } from "../../core/base/clock.ts";
import { spiffeIdFault } from "../../core/spiffe/id.ts";
import { verifyJwtSvid } from "../../core/spiffe/jwt-svid.ts";
import { SecretDiscoveryService } from "../../gen/envoy/service/secret/v3/sds_pb.js";
import type { JWTSVIDRequest, ValidateJWTSVIDRequest } from "../../gen/spiffe/workload_pb.js";
import { SpiffeWorkloadAPI } from "../../gen/spiffe/workload_pb.js";
import type { Log } from "../../io/log.ts";
import type { Handlers } from "../../io/rpc/adapter.ts";
import { listenUnix, type RpcListener } from "../../io/rpc/listen.ts";
import { reflectionServices } from "../../io/rpc/reflection.ts";
import { type CallEnd, Ended, endOf, invalid, NO_AUDIENCE, NO_HEADER, workloadAttestationEnd } from "./answer.ts";
import type { ProcessWatch } from "./attested.ts";
import type { IdentityCache } from "./cache.ts";
import { type Caller, type Callers, LIMITS } from "./callers.ts";
import type { Denials } from "./denials.ts";
import { nodeFailure } from "./failure.ts";
import type { JwtSvids } from "./jwt-svids.ts";
import { type Renderers, renderers } from "./render.ts";
import { sdsService } from "./sds.ts";
import type { SdsOptions } from "./sds-secrets.ts";
import { serveStream } from "./stream.ts";

export interface WorkloadApiOptions {
  readonly socket: string;
  readonly cache: IdentityCache;
  readonly processes: ProcessWatch;
  readonly jwtSvids: JwtSvids;
  readonly callers: Callers;
  readonly denials: Denials;
  readonly sds: SdsOptions;
  readonly verifiers: VerifierOptions;
  readonly clock: Clock;
  readonly log: Log;
}

/** For workloads that verify others. SPIRE's `allow_unauthenticated_verifiers` and `allowed_foreign_jwt_claims`. */
export interface VerifierOptions {
  /** The own trust domain's bundles are for everyone, also for processes without an identity. */
  readonly allowUnauthenticated?: boolean;
  /** Claims of another trust domain's token that are handed on, beside `sub`, `aud` and `exp`. */
  readonly foreignClaims?: readonly string[];
}

const SOCKET_MODE = 0o777;
/** SPEC: Workload API §6.2.3: claims of another trust domain's token that mean the same everywhere. */
const FOREIGN_CLAIMS = new Set(["sub", "aud", "exp"]);

/** Serves until closed. Errors: `port-in-use`, `unavailable`. */
export async function serveWorkloadApi(options: WorkloadApiOptions): Promise<RpcListener<Caller>> {
  const { callers } = options;
  const callerOf = (call: { getPeer(): string }) => listener.peerOf(call);
  const api = new WorkloadApi(options, callerOf);
  const listener = await listenUnix<Caller>(options.socket, SOCKET_MODE, {
    services: [
      { service: SpiffeWorkloadAPI, handlers: api.handlers() },
      sdsService({ ...options, callerOf }),
      // SPEC: Workload Endpoint §7.
      ...reflectionServices([SpiffeWorkloadAPI, SecretDiscoveryService]),
    ],
    identify: (socket) => callers.admit(socket),
    onGone: (caller) => callers.forget(caller),
    onRefused: (error) => options.log.warn("refused a connection", { error }),
    ...LIMITS,
  });
  return listener;
}

type AnyCall = { readonly metadata: Metadata; getPeer(): string };

class WorkloadApi {
  readonly #options: WorkloadApiOptions;
  readonly #callerOf: (call: AnyCall) => Caller;

  constructor(options: WorkloadApiOptions, callerOf: (call: AnyCall) => Caller) {
    this.#options = options;
    this.#callerOf = callerOf;
  }

  handlers(): Handlers<typeof SpiffeWorkloadAPI> {
    const unimplemented: CallEnd = { code: Status.UNIMPLEMENTED, details: "WIT-SVIDs are not supported" };
    return {
      fetchX509SVID: (call) => void this.#stream(call, "x509Svids", "X.509-SVIDs"),
      fetchX509Bundles: (call) => void this.#stream(call, "x509Bundles", "X.509 bundles"),
      fetchJWTBundles: (call) => void this.#stream(call, "jwtBundles", "JWT bundles"),
      fetchJWTSVID: (call, callback) => this.#answer(call, callback, () => this.#fetchJwt(call, call.request)),
      validateJWTSVID: (call, callback) => this.#answer(call, callback, () => this.#validateJwt(call, call.request)),
      fetchWITSVID: (call) => void call.emit("error", hasHeader(call) ? unimplemented : NO_HEADER),
      fetchWITBundles: (call) => void call.emit("error", hasHeader(call) ? unimplemented : NO_HEADER),
    };
  }

  async #stream(call: ServerWritableStream<unknown, unknown>, kind: keyof Renderers, what: string): Promise<void> {
    const { cache, processes, callers, denials, log } = this.#options;
    try {
      requireHeader(call);
      const caller = this.#callerOf(call);
      const { reference } = caller;
      const lost = (error: unknown) => this.#unattested(reference.pid, error).end;
      const onEnd = callers.enterStream(caller);
      try {
        const process = await processes.watch(reference);
        log.debug("a workload asks", { pid: reference.pid, uid: reference.caller.uid, for: what });
        const noIdentity = () => denials.noIdentity(process.attestation);
        const render = renderers(cache, noIdentity, this.#options.verifiers.allowUnauthenticated)[kind];
        serveStream({ call, process, cache, render, lost, log, onEnd });
      } catch (error) {
        onEnd();
        throw new Ended(lost(error));
      }
    } catch (error) {
      call.emit("error", endOf(error));
    }
  }

  #answer<T>(call: AnyCall, callback: sendUnaryData<T>, answer: () => Promise<T>): void {
    const run = async (): Promise<T> => {
      requireHeader(call);
      const leave = this.#options.callers.enterStream(this.#callerOf(call));
      try {
        return await answer();
      } finally {
        leave();
      }
    };
    run().then(
      (reply) => callback(null, reply),
      (error) => callback(endOf(error)),
    );
  }

  async #fetchJwt(call: AnyCall, request: JWTSVIDRequest) {
    const { cache, jwtSvids, denials, log } = this.#options;
    if (request.audience.length === 0 || request.audience.includes("")) {
      throw new Ended(NO_AUDIENCE);
    }
    if (request.spiffeId !== "" && spiffeIdFault(request.spiffeId) !== null) {
      throw new Ended(invalid("invalid requested SPIFFE ID"));
    }
    const attestation = await this.#attest(call);
    const entries = cache
      .named(attestation.selectors)
      .filter(({ spiffeId }) => request.spiffeId === "" || request.spiffeId === spiffeId);
    if (entries.length === 0) {
      throw new Ended(denials.noIdentity(attestation));
    }
    try {
      const svids = entries.map(async (entry) => ({
        spiffeId: entry.spiffeId,
        svid: await jwtSvids.token(entry, request.audience),
        hint: entry.hint,
      }));
      return { svids: await Promise.all(svids) };
    } catch (thrown) {
      const { error } = nodeFailure(thrown);
      log.warn("no JWT-SVID", { error });
      throw new Ended({ code: Status.UNAVAILABLE, details: "could not fetch JWT-SVID" });
    }
  }

  async #validateJwt(call: AnyCall, request: ValidateJWTSVIDRequest) {
    const { cache, clock, verifiers } = this.#options;
    if (request.audience === "") {
      throw new Ended(NO_AUDIENCE);
    }
    if (request.svid === "") {
      throw new Ended(invalid("svid must be specified"));
    }
    const { bundles } = cache.entitlement((await this.#attest(call)).selectors);
    const verified = verifyJwtSvid(
      request.svid,
      (name) => bundles.find(({ bundle }) => bundle.trustDomain === name)?.bundle,
      request.audience,
      clock.now(),
    );
    if (!verified.ok) {
      throw new Ended(invalid(verified.message));
    }
    const foreign = verified.trustDomain !== cache.trustDomain;
    const claims = Object.entries({ ...verified.claims, aud: verified.audiences }).filter(
      ([name]) => !foreign || FOREIGN_CLAIMS.has(name) || verifiers.foreignClaims?.includes(name) === true,
    );
    return { spiffeId: verified.id, claims: Object.fromEntries(claims) as JsonObject };
  }

  async #attest(call: AnyCall) {
    const { reference } = this.#callerOf(call);
    try {
      return await this.#options.processes.attest(reference);
    } catch (error) {
      throw this.#unattested(reference.pid, error);
    }
  }

  #unattested(pid: number, error: unknown): Ended {
    this.#options.log.warn("a workload could not be attested", { pid, error });
    return new Ended(workloadAttestationEnd(error));
  }
}

/** SPEC: Workload Endpoint §3: `workload.spiffe.io: true`, exactly. */
function hasHeader(call: { readonly metadata: Metadata }): boolean {
  const values = call.metadata.get("workload.spiffe.io");
  return values.length === 1 && values[0] === "true";
}

function requireHeader(call: { readonly metadata: Metadata }): void {
  if (!hasHeader(call)) {
    throw new Ended(NO_HEADER);
  }
}
