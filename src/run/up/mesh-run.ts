/** One run of a mesh: its processes in the order in which they start, and their end. */
import { chmodSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { EveryhopError } from "../../core/base/errors.ts";
import { parseSpiffeId, sidecarId } from "../../core/spiffe/id.ts";
import { type Child, type Exit, startChild } from "./child.ts";
import { type Claim, releaseClaim } from "./claim.ts";
import { agentConfig, proxyConfig, serverConfig, writeConfig } from "./configs.ts";
import { type MeshDocument, meshDocument, writeMeshDocument } from "./document.ts";
import { serviceEnvironment } from "./environment.ts";
import { writePlaces } from "./exec.ts";
import type { Host } from "./host.ts";
import { type LogFile, openLogFile } from "./log-file.ts";
import { CLI_ENTRY, type Own, type OwnSpec, startOwn } from "./own.ts";
import type { Plan, ServicePlan } from "./plan.ts";
import { type Program, rememberDigests, type SelectorSource, selectorsOf, serviceSelectors } from "./program.ts";
import { waitForService, waitForSidecar } from "./ready.ts";
import { endProcesses, removeTraces } from "./recover.ts";
import { connectRegistrar, type EntryRequest } from "./register.ts";
import { type ProcessName, RECORD_FILE, type RunJournal, writeState } from "./state.ts";

export type UpEvent =
  | { readonly kind: "step"; readonly text: string; readonly elapsedMs: number }
  | { readonly kind: "note"; readonly text: string }
  | { readonly kind: "service-ended"; readonly service: string; readonly exit: Exit; readonly lines: readonly string[] }
  | { readonly kind: "restart"; readonly title: string; readonly text: string }
  /** A line of a sidecar's standard output: its access log. */
  | { readonly kind: "access"; readonly service: string; readonly line: string };

export interface UpOptions {
  readonly dir: string;
  readonly stateDir: string | null;
  readonly isolate: boolean;
  readonly environment: NodeJS.ProcessEnv;
  /** The launcher whose end ends this run. */
  readonly launcher: ProcessName | null;
  readonly onEvent: (event: UpEvent) => void;
  /** Called when the mesh has to end by itself. */
  readonly onGone: () => void;
  /** Aborting gives up the start and ends what runs. */
  readonly signal: AbortSignal;
}

export interface RunningMesh {
  readonly document: MeshDocument;
  readonly plan: Plan;
  /** Ends every process, removes sockets, namespaces and the link; `graceMs` 0 kills at once. */
  stop(graceMs?: number): Promise<void>;
}

const OWN_TIMEOUT_MS = 30_000;
const GRACE_MS = 4_000;
const FOLDER_POLL_MS = 2_000;
const REGISTER_ATTEMPTS = 30;
const REGISTER_PAUSE_MS = 1_000;

interface OwnStart extends Omit<OwnSpec, "cwd" | "onStarted" | "cacheDir"> {
  /** It runs as a user of its own, who must not write where we keep compiled code. */
  readonly ownUser: boolean;
  /** Called with its process, and with each that replaces it. */
  readonly onChild?: (child: Child) => void;
}

export interface Context {
  readonly options: UpOptions;
  readonly claim: Claim;
  readonly host: Host;
  readonly plan: Plan;
  readonly journal: RunJournal;
  readonly supervisor: ProcessName;
  readonly startedAt: number;
}

export class MeshRun {
  readonly #context: Context;
  readonly #logs: LogFile[] = [];
  readonly #own: Own[] = [];
  readonly #services = new Map<string, Child>();
  readonly #digest = rememberDigests();
  #document: MeshDocument | null = null;
  #stopped: Promise<void> | null = null;

  constructor(context: Context) {
    this.#context = context;
  }

  async start(): Promise<RunningMesh> {
    const { plan, host, journal, startedAt } = this.#context;
    this.#makeFolders();
    await host.setUp(plan, journal);
    await Promise.all(plan.services.map((service) => this.#holdService(service)));
    const [entries] = await Promise.all([this.#entries(), this.#startServer()]);
    this.#step("server is up");
    await this.#startAgentAndRegister(entries);
    await this.#startSidecars();
    const pids = new Map([...this.#services].map(([name, { pid }]) => [name, pid]));
    this.#document = meshDocument(plan, pids, performance.now() - startedAt);
    writePlaces(plan, host, this.#services, (service) => this.#environment(service));
    writeMeshDocument(this.#document);
    this.#watch();
    this.#watchFolder();
    return { document: this.#document, plan, stop: (graceMs) => this.stop(graceMs) };
  }

  #makeFolders(): void {
    const { plan, host, journal } = this.#context;
    const { stateDir } = plan;
    const make = (folder: string, mode = 0o700): void => {
      mkdirSync(folder, { recursive: true, mode });
      chmodSync(folder, mode);
    };
    // The agent joins anew each time, with a token of its own.
    rmSync(join(stateDir, "agent"), { recursive: true, force: true });
    for (const name of ["server", "agent", "logs", "services", "sidecars", "cache"]) {
      make(join(stateDir, name));
    }
    if (!plan.socketDir.startsWith(stateDir)) {
      journal.add("files", dirname(plan.socketDir));
    }
    make(plan.socketDir, host.sharedMode);
    make(dirname(plan.brokerSocket), host.sharedMode);
    for (const { dir, sidecarDir } of plan.services) {
      make(dir);
      make(sidecarDir, host.sharedMode);
    }
  }

  #log(name: string): LogFile {
    const log = openLogFile(join(this.#context.plan.stateDir, "logs", `${name}.log`));
    this.#logs.push(log);
    return log;
  }

  #step(text: string): void {
    const { options, startedAt } = this.#context;
    options.onEvent({ kind: "step", text, elapsedMs: performance.now() - startedAt });
  }

  async #holdService(service: ServicePlan): Promise<void> {
    const { plan, host, options } = this.#context;
    const { name, command } = service.service;
    const child = await startChild({
      title: `service \`${name}\``,
      command: [...host.wrapService(plan, service), service.program.executable, ...command.slice(1)],
      cwd: plan.mesh.dir,
      env: { ...(service.place === null ? options.environment : {}), ...this.#environment(service) },
      log: this.#log(`services/${name}`),
      kind: "held",
    });
    this.#services.set(name, child);
    this.#record(child);
  }

  /** The variables of a service that are not its owner's; under --isolate all of them. */
  #environment(service: ServicePlan): Record<string, string> {
    return serviceEnvironment(this.#context.plan, service, this.#context.options.environment);
  }

  /** RACE: what comes up while the mesh is being ended is ended too. */
  #record(child: Child): void {
    if (this.#stopped === null) {
      this.#context.journal.add("processes", { pid: child.pid, startTime: child.startTime });
    } else {
      void child.stop(0);
    }
  }

  /** What the selectors of all that we start have in common: we are the parent. */
  #parentage() {
    const { supervisor } = this.#context;
    return { supervisor, supervisorPath: realpathSync(process.execPath), digest: this.#digest };
  }

  /** The entries of every service: their processes exist already, held. */
  async #entries(): Promise<EntryRequest[]> {
    const services = this.#context.plan.services.map(async ({ service, spiffeId, uid, program }) => {
      const child = this.#child(service.name);
      const source: SelectorSource = { ...this.#parentage(), uid, program, process: child };
      return { spiffeId, selectors: await serviceSelectors(service, source) };
    });
    return Promise.all(services);
  }

  /**
   * The entry of a sidecar that was just started, or started again. It names that one process: a service of the same user
   * that execs our program is no sidecar, and so asks no broker for another's identity.
   */
  async #registerSidecar({ service, uid, place }: ServicePlan, child: Child): Promise<void> {
    const { plan, options } = this.#context;
    const parentage = this.#parentage();
    const program: Program = {
      executable: process.execPath,
      path: parentage.supervisorPath,
      script: realpathSync(CLI_ENTRY),
    };
    const selectors = await selectorsOf({ ...parentage, uid: place?.sidecarUid ?? uid, program, process: child });
    const entry = { spiffeId: sidecarId(plan.mesh.trustDomain), selectors };
    const agentId = parseSpiffeId(readOr(join(plan.stateDir, "agent-id"), ""));
    for (let attempt = 1; this.#stopped === null; attempt++) {
      const registrar = connectRegistrar(plan.adminSocket, plan.mesh.trustDomain);
      try {
        return await registrar.add(agentId, [entry]);
      } catch (error) {
        if (attempt === REGISTER_ATTEMPTS) {
          const reason = error instanceof Error ? error.message : String(error);
          options.onEvent({
            kind: "note",
            text: `the sidecar of \`${service.name}\` could not be registered: ${reason}`,
          });
          return;
        }
        // The server may be starting again.
        await new Promise((resolve) => setTimeout(resolve, REGISTER_PAUSE_MS));
      } finally {
        registrar.close();
      }
    }
  }

  #child(service: string): Child {
    const child = this.#services.get(service);
    if (child === undefined) {
      throw new EveryhopError("internal", `\`${service}\` was not started`);
    }
    return child;
  }

  async #startServer(): Promise<void> {
    const { plan } = this.#context;
    await this.#startOwn({
      title: "server",
      command: "server",
      configFile: writeConfig(plan.stateDir, "server", withLevel(serverConfig(plan))),
      wrap: [],
      ownUser: false,
      log: this.#log("server"),
    });
  }

  async #startAgentAndRegister(entries: readonly EntryRequest[]): Promise<void> {
    const { plan } = this.#context;
    const registrar = connectRegistrar(plan.adminSocket, plan.mesh.trustDomain);
    try {
      const { token, agentId } = await registrar.joinToken();
      const agentIdFile = join(plan.stateDir, "agent-id");
      await registrar.forget(readOr(agentIdFile, ""));
      writeState(agentIdFile, agentId);
      const tokenFile = join(plan.stateDir, "agent", "join-token");
      writeState(tokenFile, `${token}\n`);
      const config = agentConfig(plan, tokenFile, sidecarId(plan.mesh.trustDomain));
      await Promise.all([
        registrar.register(agentId, entries).then(() => this.#releaseServices()),
        this.#startOwn({
          title: "agent",
          command: "agent",
          configFile: writeConfig(plan.stateDir, "agent", withLevel(config)),
          wrap: [],
          ownUser: false,
          log: this.#log("agent"),
        }),
      ]);
      this.#step(`agent is up, ${entries.length} identities registered`);
    } finally {
      registrar.close();
    }
  }

  /** Lets every service become its program: its entry is there. */
  #releaseServices(): void {
    for (const { service, pidFile } of this.#context.plan.services) {
      const child = this.#child(service.name);
      writeState(pidFile, `${child.pid}\n`, 0o644);
      child.release();
    }
  }

  /** Starts a sidecar beside each service, and waits for both. */
  async #startSidecars(): Promise<void> {
    const { plan, host, options } = this.#context;
    const isolated = options.isolate;
    await Promise.all(
      plan.services.map(async (service) => {
        const { name } = service.service;
        const child = this.#child(name);
        const sidecar = this.#startOwn({
          title: `sidecar of \`${name}\``,
          command: "proxy",
          configFile: writeConfig(service.sidecarDir, "proxy", withLevel(proxyConfig(plan, service)), 0o644),
          wrap: host.wrapSidecar(plan, service),
          ownUser: service.place !== null,
          log: this.#log(`sidecars/${name}`),
          onLine: (line) => options.onEvent({ kind: "access", service: name, line }),
          onChild: (process) => void this.#registerSidecar(service, process),
        });
        await Promise.all([
          waitForService(service, child, isolated, options.signal).then(() =>
            this.#step(`${name} listens on ${service.app}`),
          ),
          sidecar.then((own) =>
            waitForSidecar(service, own.child(), child, OWN_TIMEOUT_MS, options.signal).then(() =>
              this.#step(`${name} has its identity and policy`),
            ),
          ),
        ]);
      }),
    );
  }

  async #startOwn(spec: OwnStart): Promise<Own> {
    const { plan, options } = this.#context;
    const own = await startOwn(
      {
        ...spec,
        cwd: plan.mesh.dir,
        cacheDir: spec.ownUser ? null : join(plan.stateDir, "cache"),
        onStarted: (child) => {
          this.#record(child);
          spec.onChild?.(child);
        },
      },
      OWN_TIMEOUT_MS,
      options.signal,
    );
    this.#own.push(own);
    return own;
  }

  /** A folder that is deleted under a running mesh takes it along: `down` could not find it any more. */
  #watchFolder(): void {
    const file = join(this.#context.plan.stateDir, RECORD_FILE);
    const timer = setInterval(() => {
      if (!existsSync(file) && this.#stopped === null) {
        this.#context.options.onEvent({ kind: "note", text: "the state folder is gone: the mesh ends" });
        this.#context.options.onGone();
      }
    }, FOLDER_POLL_MS);
    timer.unref();
  }

  /** After ready: our own processes are started again when they fail, a service that ends is told. */
  #watch(): void {
    const { onEvent } = this.#context.options;
    for (const own of this.#own) {
      own.keepAlive((title, text) => onEvent({ kind: "restart", title, text }));
    }
    for (const [service, child] of this.#services) {
      child.exited.then(
        (exit) => {
          if (this.#stopped === null) {
            this.#markExited(service, exit);
            onEvent({ kind: "service-ended", service, exit, lines: child.log.tail() });
          }
        },
        () => {},
      );
    }
  }

  #markExited(name: string, { code, signal }: Exit): void {
    const document = this.#document;
    const service = document?.services[name];
    if (document != null && service !== undefined) {
      const exited = { time: new Date().toISOString(), code, signal };
      this.#document = { ...document, services: { ...document.services, [name]: { ...service, exited } } };
      writeMeshDocument(this.#document);
    }
  }

  stop(graceMs = GRACE_MS): Promise<void> {
    if (this.#stopped !== null && graceMs === 0) {
      for (const child of [...this.#services.values(), ...this.#own.map((own) => own.child())]) {
        child.kill();
      }
    }
    this.#stopped ??= this.#end(graceMs);
    return this.#stopped;
  }

  async #end(graceMs: number): Promise<void> {
    const { plan, journal, claim } = this.#context;
    const [control, sidecars] = partition(this.#own, ({ title }) => title === "server" || title === "agent");
    await Promise.all([...this.#services.values(), ...sidecars].map((process) => process.stop(graceMs)));
    await Promise.all(control.map((process) => process.stop(graceMs)));
    await endProcesses(journal.record);
    await removeTraces(plan.stateDir, journal.record);
    for (const log of this.#logs) {
      log.close();
    }
    releaseClaim(claim);
  }
}

/** EVERYHOP_LOG_LEVEL=debug makes every process of ours say more. */
function withLevel(config: object): object {
  const logLevel = process.env.EVERYHOP_LOG_LEVEL;
  return logLevel === undefined ? config : { ...config, logLevel };
}

function readOr(file: string, otherwise: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return otherwise;
  }
}

function partition<T>(items: readonly T[], test: (item: T) => boolean): [yes: T[], no: T[]] {
  return [items.filter(test), items.filter((item) => !test(item))];
}
