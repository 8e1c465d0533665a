/** The server process: identity and control plane on one store, one authority and one clock. */
import { randomUUID } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Registry as Metrics } from "prom-client";
import { type Control, startControl } from "../control/start.ts";
import { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import { EveryhopError, type Issue } from "../core/base/errors.ts";
import { Authority } from "../identity/authority/authority.ts";
import { agentTtlMs } from "../identity/authority/lifetimes.ts";
import type { SignerLink } from "../identity/authority/signer-link.ts";
import type { SeenCertificate } from "../identity/server/audit.ts";
import { Bundles } from "../identity/server/bundles.ts";
import { ChangeLog } from "../identity/server/change-log.ts";
import { IdentityServer, type Listening } from "../identity/server/identity-server.ts";
import { storeJournal } from "../identity/server/journal.ts";
import { Registry } from "../identity/server/registry.ts";
import { openUpstream, type UpstreamConfig } from "../identity/server/upstream/open.ts";
import { systemClock } from "../io/clock.ts";
import { type HttpListener, listenHttp } from "../io/http.ts";
import { type Log, makeLog } from "../io/log.ts";
import { randomOctets } from "../io/random.ts";
import { diskStateFile } from "../io/state-file.ts";
import type { Store } from "../io/store/store.ts";
import { pemChain } from "../io/tls.ts";
import { handlersOf } from "./admin-handlers.ts";
import { openDataStore } from "./data-store.ts";
import { healthRoutes } from "./health.ts";
import { makeVerifiers } from "./node-attestors.ts";
import type { ServerConfig } from "./server-config.ts";
import {
  authoritiesFile,
  type OpenSigner,
  openServerSigner,
  processSigner,
  registerSignerGauges,
  signerProblems,
} from "./server-signer.ts";

export interface ServerOptions {
  readonly clock?: Clock;
  readonly log?: Log;
  /** Places in messages are written relative to it; default: the current folder. */
  readonly baseDir?: string;
  /** Default: in a process of its own. */
  readonly openSigner?: OpenSigner;
}

/** What one line on standard output says when all is ready. */
export interface ServerReady {
  readonly ready: true;
  readonly trustDomain: string;
  /** The first of each; `addresses` has all. */
  readonly listen: string;
  readonly xds: string;
  readonly http: string;
  readonly adminSocket: string;
  /** Where our bundle is served to other trust domains; null: nowhere. */
  readonly bundleEndpoint: string | null;
  /** PEM of the trust bundle, kept current: agents start from it. */
  readonly trustBundle: string;
  readonly addresses: { readonly listen: readonly string[]; readonly xds: readonly string[] };
}

export interface RunningServer {
  readonly ready: ServerReady;
  readonly registry: Registry;
  readonly identity: IdentityServer;
  readonly authority: Authority;
  readonly control: Control;
  /** Ends everything, in the order that leaves nothing half-done. */
  close(): Promise<void>;
}

/** Starts the server, or leaves nothing running. Errors: `storage-failed`, `permission-denied`, `port-in-use`, `config-invalid`. */
export async function startServer(config: ServerConfig, options: ServerOptions = {}): Promise<RunningServer> {
  const { clock = systemClock, log = makeLog("server", { level: config.logLevel }) } = options;
  const cleanups: (() => Promise<void> | void)[] = [];
  const close = async (): Promise<void> => {
    for (const cleanup of cleanups.splice(0).reverse()) {
      await cleanup();
    }
  };
  try {
    const { baseDir = process.cwd(), openSigner = processSigner(clock, log) } = options;
    return await start(config, { clock, log, baseDir, openSigner }, cleanups, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function start(
  config: ServerConfig,
  options: Required<ServerOptions>,
  cleanups: (() => Promise<void> | void)[],
  close: () => Promise<void>,
): Promise<RunningServer> {
  const { clock, log } = options;
  ownerOnlyFolder(config.dataDir);
  const database = await openDataStore(config.dataStore, config.dataDir, options);
  cleanups.push(() => database.close());
  const { store } = database;
  const metrics = new Metrics();
  const registry = await Registry.open({ store, trustDomain: config.trustDomain, clock });
  const bundles = new Bundles({
    store,
    registry,
    serverId: serverIdOf(config.dataDir),
    onError: (error) => log.error("the bundle could not be published; it is tried again", { error }),
  });
  const signer = await openServerSigner(config, options.openSigner, log);
  cleanups.push(() => signer.close());
  registerSignerGauges(metrics, () => signer.state.value);
  const authority = await openAuthority(config, store, signer, bundles, options, cleanups);
  const changes = await ChangeLog.open({ dir: join(config.dataDir, "changes"), clock });
  cleanups.push(() => changes.close());
  const identity = await IdentityServer.open({
    metrics,
    trustDomain: config.trustDomain,
    store,
    databaseUp: () => database.problem() === null,
    registry,
    bundles,
    authority,
    changes,
    agentTtlMs: agentTtlMs(config.ca),
    adminIds: config.adminIds,
    rateLimit: config.rateLimit,
    pruneAgents: config.pruneAgents,
    federation: config.federation,
    nodeVerifiers: (own) => makeVerifiers(config.nodeAttestors, own),
    clock,
    log,
    roles: config.roles,
  });
  cleanups.push(() => identity.close());
  const trustBundle = join(config.dataDir, "bundle.pem");
  cleanups.push(keepBundleFile(trustBundle, identity.authorities, log));
  const problems = () => signerProblems(signer.state.value);
  const control = await openControl(config, identity, registry, { metrics, problems }, options);
  cleanups.push(() => control.close());
  const listening = await listen(config, identity, control);
  cleanups.push(() => listening.close());
  const http = await listenHttp(config.http, routes(metrics, database.problem));
  cleanups.push(() => http.close());
  if (config.health !== null) {
    const health = await listenHttp(config.health.listen, healthRoutes(config.health));
    cleanups.push(() => health.close());
  }
  const ready = readyDocument(config, trustBundle, listening, control, http);
  return { ready, registry, identity, authority, control, close };
}

async function openAuthority(
  config: ServerConfig,
  store: Store,
  signer: SignerLink,
  bundles: Bundles,
  { clock, log }: Required<ServerOptions>,
  cleanups: (() => Promise<void> | void)[],
): Promise<Authority> {
  const kept = authoritiesFile(config);
  const upstream = config.upstream === null ? null : await openServerUpstream(config, config.upstream, { clock, log });
  cleanups.push(() => upstream?.close());
  if (upstream !== null) {
    bundles.follow(upstream.bundle);
  }
  const authority = await Authority.open({
    trustDomain: config.trustDomain,
    signer,
    kept,
    journal: storeJournal(store.issuance, clock),
    upstream,
    clock,
    ...config.ca,
    random: randomOctets,
    announce: (bundle, fresh) => bundles.announce(bundle, fresh),
    onError: (error) => log.error("the authority could not rotate; it is tried again", { error }),
  });
  cleanups.push(() => authority.close());
  return authority;
}

function openServerUpstream(
  config: ServerConfig,
  upstream: UpstreamConfig,
  { clock, log }: { clock: Clock; log: Log },
) {
  const { trustDomain, dataDir } = config;
  const file = diskStateFile(join(dataDir, "upstream.json"));
  return openUpstream({ config: upstream, trustDomain, file, clock, random: randomOctets, log });
}

function openControl(
  config: ServerConfig,
  identity: IdentityServer,
  registry: Registry,
  told: { readonly metrics: Metrics; readonly problems: () => readonly Issue[] },
  { clock, log, baseDir }: Required<ServerOptions>,
): Promise<Control> {
  return startControl({
    trustDomain: config.trustDomain,
    policies: config.policies,
    baseDir,
    meshConfig: config.meshConfig,
    services: new Cell(config.services),
    listen: config.xds,
    svid: identity.svid,
    authorities: identity.authorities,
    identities: registry,
    versionFile: join(config.dataDir, "world-version"),
    clock,
    log: log.with({ part: "control" }),
    ...told,
  });
}

function listen(config: ServerConfig, identity: IdentityServer, control: Control): Promise<Listening> {
  const seen = async (): Promise<readonly SeenCertificate[]> => {
    const { identities } = await control.status();
    return identities.map(({ spiffeId, serial }) => ({ spiffeId, serial, seenBy: "control plane" }));
  };
  mkdirSync(dirname(config.adminSocket), { recursive: true, mode: 0o700 });
  const { adminSocket } = config;
  return identity.listen({ listen: config.listen, adminSocket, admin: handlersOf(control.admin), seen });
}

function routes(metrics: Metrics, problem: () => string | null) {
  const text = (body: string) => ({ contentType: "text/plain; charset=utf-8", body });
  return {
    "/metrics": async () => ({ contentType: metrics.contentType, body: await metrics.metrics() }),
    "/healthz": () => text("ok\n"),
    // It listens only once all else is up, and stops first. Without its database it serves on what it knows.
    "/readyz": () => text(`${problem() ?? "ok"}\n`),
  };
}

function readyDocument(
  config: ServerConfig,
  trustBundle: string,
  listening: Listening,
  control: Control,
  http: HttpListener,
): ServerReady {
  const text = ({ host, port }: { host: string; port: number }) => `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const addresses = { listen: listening.addresses.map(text), xds: control.addresses.map(text) };
  return {
    ready: true,
    trustDomain: config.trustDomain,
    listen: addresses.listen[0] ?? "",
    xds: addresses.xds[0] ?? "",
    http: text(http),
    adminSocket: config.adminSocket,
    bundleEndpoint: listening.bundleEndpoint === null ? null : text(listening.bundleEndpoint),
    trustBundle,
    addresses,
  };
}

/** Which of the trust domain's servers this is; made once. */
function serverIdOf(dataDir: string): string {
  const file = join(dataDir, "server-id");
  const known = existsSync(file) ? readFileSync(file, "utf8").trim() : "";
  if (known !== "") {
    return known;
  }
  const id = randomUUID();
  writeWhole(file, `${id}\n`);
  return id;
}

/** The folder of everything the server keeps. INVARIANT: owner-only, or it is refused. */
function ownerOnlyFolder(dir: string): void {
  try {
    const made = mkdirSync(dir, { recursive: true, mode: 0o700 });
    if (made !== undefined || isUnused(dir)) {
      chmodSync(dir, 0o700);
    }
    const { mode, uid } = statSync(dir);
    if ((mode & 0o077) !== 0 || uid !== process.getuid?.()) {
      throw new EveryhopError(
        "permission-denied",
        `the data folder \`${dir}\` can be reached by others than its owner`,
        {
          hint: `it holds signing keys: \`chmod 700 ${dir}\`, and let it belong to the user who runs the server`,
        },
      );
    }
  } catch (error) {
    if (error instanceof EveryhopError) {
      throw error;
    }
    throw new EveryhopError(
      "storage-failed",
      `the data folder \`${dir}\` cannot be made: ${(error as Error).message}`,
      {
        hint: "choose another `dataDir`, or make its parent writable",
        cause: error,
      },
    );
  }
}

/** What a SPIRE server left in its `data_dir`, or a new volume has in it. */
const FOREIGN = /^(datastore\.sqlite3.*|keys\.json|certs\.json|journal\.pem|lost\+found)$/;

/** Nothing of ours was ever in it, nor anything that others would miss: it may be closed, as a folder that was just made is. */
function isUnused(dir: string): boolean {
  const { mode, uid } = statSync(dir);
  return uid === process.getuid?.() && (mode & 0o002) === 0 && readdirSync(dir).every((name) => FOREIGN.test(name));
}

/** Writes the trust bundle now and at each change; a reader never sees half a file. */
function keepBundleFile(file: string, authorities: Cell<readonly Uint8Array[]>, log: Log): () => void {
  writeWhole(file, pemChain(authorities.value));
  return authorities.watch((next) => {
    try {
      writeWhole(file, pemChain(next));
    } catch (error) {
      log.error("the trust bundle's file could not be written", { file, error });
    }
  });
}

function writeWhole(file: string, text: string): void {
  const temporary = `${file}.new`;
  try {
    const handle = openSync(temporary, "w", 0o644);
    try {
      writeSync(handle, text);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
    renameSync(temporary, file);
  } catch (error) {
    throw new EveryhopError("storage-failed", `cannot write \`${file}\`: ${(error as Error).message}`, {
      hint: "make room on the disk of the data folder, and let it belong to the user who runs the server",
      cause: error,
    });
  }
}
