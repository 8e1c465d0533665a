/** The agent: joins the trust domain as a node, and hands identities to the workloads of its machine. */
import { chmod, mkdir } from "node:fs/promises";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError, toEveryhopError } from "../../core/base/errors.ts";
import { emptyBundle } from "../../core/spiffe/bundle.ts";
import { isTrustedKey } from "../../core/spiffe/distrust.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import type { KeyStore } from "../../io/keys.ts";
import type { Log } from "../../io/log.ts";
import { proveByJoinToken } from "../attest/node/join-token/prove.ts";
import type { MakeProof } from "../attest/node/proof.ts";
import type { WorkloadAttestor } from "../attest/workload/attest.ts";
import { serveAgentAdmin } from "./admin.ts";
import { type AttestorTally, ProcessWatch } from "./attested.ts";
import type { TrustSource } from "./bootstrap.ts";
import { type KubeObjectsOptions, serveBroker } from "./broker.ts";
import { IdentityCache } from "./cache.ts";
import { Callers } from "./callers.ts";
import { Denials } from "./denials.ts";
import { join } from "./join.ts";
import { JwtSvids } from "./jwt-svids.ts";
import { Keeper } from "./keeper.ts";
import { openKeptStore } from "./kept-store.ts";
import { connectNodeApi, type NodeApi } from "./node-api.ts";
import { forgetOwnIdentity, loadOwnIdentity, type OwnIdentity, saveOwnIdentity } from "./own-identity.ts";
import { SDS_DEFAULTS, type SdsOptions } from "./sds-secrets.ts";
import { connectAnyServer } from "./servers.ts";
import { NodeSync, type SyncState } from "./sync.ts";
import { followBundle, trustAnchors } from "./trust-anchors.ts";
import { serveWorkloadApi, type VerifierOptions } from "./workload-api.ts";

export interface AgentOptions {
  readonly trustDomain: TrustDomain;
  /** `host:port` of each replica of the server. */
  readonly servers: readonly string[];
  /** A folder of the agent's own. */
  readonly dataDir: string;
  /** Whether secrets are kept in `dataDir`, sealed with the key in `cacheKeyFile`, or end with the process. */
  readonly cache: "disk" | "memory";
  readonly cacheKeyFile: string;
  /** Needed to join; not needed (and not used) while the SVID from an earlier run is good. */
  readonly joinToken: string | null;
  /** How else the node proves itself, at the start and again whenever it has to. */
  readonly prove?: MakeProof | null;
  /** What the server is trusted by at first: a PEM file, as a path, or another source. */
  readonly trustBundle: TrustSource;
  /** Workload API. */
  readonly socket: string;
  readonly brokerSocket: string;
  /** Where the broker endpoint is served over TCP too. */
  readonly brokerListen?: { readonly host: string; readonly port: number } | null;
  /** For the agent's own user alone. */
  readonly adminSocket: string;
  readonly brokers: readonly SpiffeId[];
  /** Default: brokers name processes alone. */
  readonly kubeObjects?: KubeObjectsOptions | null;
  readonly sds?: SdsOptions;
  /** Who may ask for others' identities on the admin socket. */
  readonly authorizedDelegates?: readonly SpiffeId[];
  readonly verifiers?: VerifierOptions;
  readonly attestors: readonly WorkloadAttestor[];
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly pollMs?: number;
}

export interface RunningAgent {
  /** `unix://…` */
  readonly socket: string;
  readonly brokerSocket: string;
  /** `host:port`, or null. */
  readonly brokerListen: string | null;
  readonly adminSocket: string;
  readonly own: Cell<OwnIdentity>;
  readonly cache: IdentityCache;
  readonly sync: Cell<SyncState>;
  connections(): { readonly workload: number; readonly broker: number };
  /** Processes that streams are open for, each as often as it has streams. */
  watchedProcesses(): number;
  /** When what could be handed out was last written to the disk; null: nothing is there. */
  keptAtMs(): number | null;
  /** What each workload attestor has done so far. */
  attestations(): ReadonlyMap<string, AttestorTally>;
  /** Resolves when it was closed; rejects where it cannot go on. */
  readonly ended: Promise<void>;
  close(): Promise<void>;
}

/**
 * Starts an agent; returns once it has joined, synced and listens. Errors: `unauthenticated` (the server does not accept it),
 * `unavailable` (no server for a minute), `file-missing`, `config-invalid`, `storage-failed`, `port-in-use`.
 */
export async function startAgent(options: AgentOptions): Promise<RunningAgent> {
  const { trustDomain, dataDir, clock, log } = options;
  await ownFolder(dataDir);
  const store = await openKeptStore(options);
  const keys = store.own;
  const trust = await trustAnchors(options, keys);
  const connect = connector(options, trust.authorities);
  const own = new Cell(await ownIdentity(options, keys, connect));
  const cache = new IdentityCache(trustDomain, clock);
  cache.setBundle({ ...emptyBundle(trustDomain), x509Authorities: trust.authorities.value });
  const jwtSvids = new JwtSvids(
    (entryId, audience) => sync.signJwt(entryId, audience),
    clock,
    () => keeper.save(),
  );
  const keeper = new Keeper({
    store,
    agentId: () => own.value.svid.id,
    contents: (change) => ({
      ...cache.contents(change),
      tokens: jwtSvids.contents(),
      syncedAtMs: sync.state.value.syncedAtMs ?? 0,
    }),
    clock,
    log,
  });
  const kept = await keeper.load(own.value.svid.id);
  if (kept !== null) {
    cache.restore(kept);
    jwtSvids.restore(kept.tokens);
    log.info("goes on with what an earlier run kept", { svids: cache.svidCount, syncedAt: iso(kept.syncedAtMs) });
  }
  followBundle(cache, trust.learn);
  cache.changed.watch(() => keeper.save());
  const sync: NodeSync = new NodeSync({
    ...options,
    connect,
    cache,
    own,
    prove: options.prove ?? null,
    save: (next) => saveOwnIdentity(keys, next),
    withdraw: (change) => keeper.withdraw(change, () => cache.apply(change)),
    syncedAtMs: kept?.syncedAtMs ?? null,
    refreshAuthorities: trust.refresh,
  });
  const ended = sync
    .run()
    .catch(async (thrown) => {
      const error = toEveryhopError(thrown);
      log.error("the agent ends", { error });
      if (error.code === "unauthenticated" || error.code === "permission-denied") {
        await Promise.all([forgetOwnIdentity(keys), keeper.forget()]);
      }
      throw error;
    })
    .finally(trust.settled);
  ended.catch(() => {});
  try {
    await Promise.race([kept === null ? firstSync(sync.state) : firstWord(sync.state, clock), ended]);
    return await serve(options, { own, cache, jwtSvids, keeper, sync, ended });
  } catch (error) {
    sync.close();
    throw error;
  }
}

/** A server that neither answers nor fails is waited for so long before workloads get what was kept. */
const SERVER_PATIENCE_MS = 2_000;

/** Connects to one of the servers; to the one that was good last, where the agent connects again with another SVID. */
function connector(
  options: AgentOptions,
  authorities: Cell<readonly Uint8Array[]>,
): (svid: X509Svid | null) => NodeApi {
  const { trustDomain, servers, clock, random, log } = options;
  let first = Math.floor(random() * servers.length);
  return (svid) =>
    connectAnyServer({
      servers,
      first,
      connect: (server) => connectNodeApi({ server, trustDomain, authorities, svid, clock }),
      onChange(server, why) {
        first = servers.indexOf(server);
        log.info("goes to another server", { server, why });
      },
    });
}

async function ownFolder(dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await chmod(dir, 0o700);
  } catch (error) {
    throw new EveryhopError("storage-failed", `cannot use the data folder \`${dir}\`: ${(error as Error).message}`, {
      hint: "`dataDir` has to be a folder that the agent's user owns, or may make",
      cause: error,
    });
  }
}

interface Parts {
  readonly own: Cell<OwnIdentity>;
  readonly cache: IdentityCache;
  readonly jwtSvids: JwtSvids;
  readonly keeper: Keeper;
  readonly sync: NodeSync;
  readonly ended: Promise<void>;
}

async function serve(options: AgentOptions, parts: Parts): Promise<RunningAgent> {
  const { own, cache, jwtSvids, keeper, sync, ended } = parts;
  const { clock, log } = options;
  const processes = new ProcessWatch({ ...options, needed: cache.needed });
  const keepTokens = () => {
    const kept = new Set([...cache.entries.values()].map(({ spiffeId }) => spiffeId));
    jwtSvids.keep(kept, (keyId) => isTrustedKey(keyId, cache.bundle));
  };
  keepTokens();
  cache.changed.watch(keepTokens);
  const ownSvid = new Cell(own.value.svid);
  own.watch(({ svid }) => ownSvid.set(svid));
  const agent = () => ({ spiffeId: own.value.svid.id, expiresAtMs: own.value.svid.notAfter, ...sync.state.value });
  const shared = { cache, processes, jwtSvids, clock, log };
  const callers = { workload: new Callers(), broker: new Callers(), admin: new Callers() };
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    sync.close();
    processes.close();
    await Promise.all(closers.map((closeOne) => closeOne()));
    await keeper.close();
  };
  try {
    const workloadApi = await serveWorkloadApi({
      ...shared,
      callers: callers.workload,
      denials: new Denials({ cache, agent, clock, log }),
      socket: options.socket,
      sds: options.sds ?? SDS_DEFAULTS,
      verifiers: options.verifiers ?? {},
    });
    closers.push(() => workloadApi.close());
    const brokers = new Set(options.brokers);
    const broker = await serveBroker({
      ...shared,
      callers: callers.broker,
      socket: options.brokerSocket,
      listen: options.brokerListen ?? null,
      svid: ownSvid,
      brokers,
      kubeObjects: options.kubeObjects ?? null,
    });
    closers.push(() => broker.close());
    const admin = await serveAgentAdmin({
      cache,
      processes,
      socket: options.adminSocket,
      agent,
      jwtSvids,
      callers: callers.admin,
      delegates: new Set(options.authorizedDelegates),
      log,
    });
    closers.push(() => admin.close());
    const stopped = ended.finally(close);
    stopped.catch(() => {});
    return {
      socket: workloadApi.address,
      brokerSocket: broker.address,
      brokerListen: broker.tcpAddress,
      adminSocket: admin.address,
      own,
      cache,
      sync: sync.state,
      watchedProcesses: () => processes.size,
      keptAtMs: () => keeper.savedAtMs,
      attestations: () => processes.tally,
      connections: () => ({ workload: callers.workload.count, broker: callers.broker.count }),
      ended: stopped,
      close: async () => {
        await close();
        await ended.catch(() => {});
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function ownIdentity(
  options: AgentOptions,
  keys: KeyStore,
  connect: (svid: X509Svid | null) => NodeApi,
): Promise<OwnIdentity> {
  const { trustDomain, joinToken, clock, log } = options;
  const known = await loadOwnIdentity(keys, trustDomain, clock.now());
  if (known !== null) {
    log.info("goes on with the SVID of an earlier run", { spiffeId: known.svid.id });
    return known;
  }
  const prove = options.prove ?? (joinToken === null ? null : async () => proveByJoinToken(joinToken));
  if (prove === null) {
    throw new EveryhopError("unauthenticated", "the agent has no SVID, and no join token to get one with", {
      hint: "make a token with `everyhop token generate` and give it as `joinToken` or `joinTokenFile`, or set `nodeAttestor`",
    });
  }
  const api = connect(null);
  try {
    const own = await join({ ...options, api, prove });
    await saveOwnIdentity(keys, own);
    log.info("joined", { spiffeId: own.svid.id, notAfter: new Date(own.svid.notAfter).toISOString() });
    return own;
  } finally {
    api.close();
  }
}

function firstSync(state: Cell<SyncState>): Promise<void> {
  return new Promise((resolve) => {
    const unwatch = state.watch(({ syncedAtMs }) => {
      if (syncedAtMs !== null) {
        unwatch();
        resolve();
      }
    });
  });
}

/**
 * Waits until the server has answered, or could not: who takes up an earlier run's cache serves from it when the server is away,
 * and not before it has asked.
 */
function firstWord(state: Cell<SyncState>, clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      unwatch();
      cancel();
      resolve();
    };
    const unwatch = state.watch(done);
    const cancel = clock.after(SERVER_PATIENCE_MS, done);
  });
}

const iso = (ms: number): string => new Date(ms).toISOString();
