import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { trustDomainOf } from "../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import { certificatesToPem, formatPem } from "../core/x509/pem.ts";
import { systemClock } from "../io/clock.ts";
import { type Log, makeLog } from "../io/log.ts";
import { workloadSocket } from "../workload/socket.ts";
import { watchX509 } from "../workload/workload-api.ts";
import type { SourceState, X509Source } from "../workload/x509-source.ts";
import { each, seconds, spiffeId, text } from "./arguments.ts";
import { commandGroup } from "./command-group.ts";
import { findMesh, meshIfAny } from "./find-mesh.ts";
import { writeSvidFiles } from "./svid-files.ts";
import { fetchJwt, type JwtOptions, validateJwt, watchJwt } from "./svid-jwt.ts";
import { note, print, printJson, reportFailure } from "./ui.ts";

interface Options extends JwtOptions {
  readonly socket?: string;
  readonly dir?: string;
  readonly type: "x509" | "jwt";
}

interface FetchOptions extends Options {
  readonly timeout: number;
}

const SOCKET_TEXT = "the Workload API, `unix:///PATH` (default: SPIFFE_ENDPOINT_SOCKET, then the mesh of --dir)";

export function define(program: Command): void {
  const svid = commandGroup(program, "svid", "SVIDs: the identity documents of workloads");
  svid
    .command("fetch")
    .description("get this process's own identities from the local agent")
    .option("--socket <address>", SOCKET_TEXT)
    .option("--dir <dir>", "folder of a running mesh, whose agent is asked (default: the current folder)")
    .addOption(typeOption())
    .option("--audience <name>", "with --type jwt: whom the token is for; several times", each(text))
    .option("--spiffe-id <id>", "with --type jwt: this identity only", spiffeId)
    .option("--out-dir <dir>", "write svid.N.pem, svid.N.key and bundle.N.pem there, or svid.N.jwt")
    .option("--timeout <duration>", "how long to wait for the agent, `5s` or seconds", seconds, 10)
    .option("--json", "as JSON")
    .addHelpText(
      "after",
      `
The agent knows who asks from the kernel: the identities are those of this command's process, not of its shell.
Exit code 1: there are none.

Examples:
  everyhop svid fetch
  everyhop svid fetch --socket unix:///run/everyhop/agent.sock --out-dir identity --json
  everyhop svid fetch --type jwt --audience shop`,
    )
    .action(fetch);
  svid
    .command("watch")
    .description("follow this process's own identities, a line at each update")
    .option("--socket <address>", SOCKET_TEXT)
    .option("--dir <dir>", "folder of a running mesh, whose agent is asked (default: the current folder)")
    .addOption(typeOption())
    .option("--audience <name>", "with --type jwt: whom the tokens are for; several times", each(text))
    .option("--spiffe-id <id>", "with --type jwt: this identity only", spiffeId)
    .option("--json", "as JSON lines")
    .addHelpText("after", "\nExamples:\n  everyhop svid watch --json\n  everyhop svid watch --type jwt --audience shop")
    .action(watch);
  svid
    .command("validate")
    .description("ask the local agent whether a JWT-SVID is good for an audience, and whose it is")
    .option("--socket <address>", SOCKET_TEXT)
    .option("--dir <dir>", "folder of a running mesh, whose agent is asked (default: the current folder)")
    .requiredOption("--audience <name>", "whom it has to be for")
    .requiredOption("--token <jwt>", "the token")
    .option("--json", "as JSON")
    .addHelpText(
      "after",
      "\nExit code 1: it is not good.\n\nExample:\n  everyhop svid validate --audience shop --token eyJ…",
    )
    .action((options: Options & { audience: string; token: string }) => validateJwt(socketOf(options), options));
}

function typeOption(): Option {
  return new Option("--type <type>", "X.509-SVIDs or JWT-SVIDs").choices(["x509", "jwt"]).default("x509");
}

function socketOf(options: Pick<Options, "socket" | "dir">): string {
  const { dir } = options;
  const socket = dir === undefined ? options.socket : (options.socket ?? findMesh({ dir }).agentSocket);
  return workloadSocket(socket ?? meshSocket(), process.env);
}

function open(options: Options, log: Log): X509Source {
  return watchX509({ socket: socketOf(options), log, clock: systemClock });
}

/** The agent of a mesh that runs in the current folder, where the environment names none. */
function meshSocket(): string | undefined {
  return process.env.SPIFFE_ENDPOINT_SOCKET === undefined ? meshIfAny({})?.agentSocket : undefined;
}

async function fetch(options: FetchOptions): Promise<void> {
  if (options.type === "jwt") {
    return fetchJwt(socketOf(options), options, options.timeout * 1_000);
  }
  const source = open(options, makeLog("svid", { level: "error" }));
  try {
    const answer = await firstAnswer(source, options.timeout * 1_000);
    if (answer.kind === "denied") {
      reportFailure(noIdentity(answer.message), options.json === true);
      process.exitCode = 1;
    } else {
      show(options, source.svids.value, source.bundles.value);
    }
  } finally {
    source.close();
  }
}

/** Waits until the agent has said yes or no. Errors: `unavailable`, `failed-precondition`. */
function firstAnswer(source: X509Source, timeoutMs: number): Promise<SourceState> {
  return new Promise((resolve, reject) => {
    const settle = (state: SourceState): void => {
      if (state.kind === "ready" || state.kind === "denied") {
        clearTimeout(timer);
        resolve(state);
      } else if (state.kind === "failed") {
        clearTimeout(timer);
        reject(new EveryhopError("failed-precondition", `the agent refuses the request: ${state.message}`));
      }
    };
    const timer = setTimeout(() => reject(noAgent(source.state.value)), timeoutMs);
    source.state.watch(settle);
    settle(source.state.value);
  });
}

function noAgent(state: SourceState): EveryhopError {
  const why = state.kind === "away" ? `: ${state.message}` : "";
  return new EveryhopError("unavailable", `no agent answered in time${why}`, {
    hint: "is the agent running? name its socket with `--socket unix:///PATH` or SPIFFE_ENDPOINT_SOCKET",
  });
}

function noIdentity(message: string): EveryhopError {
  const why = "no registration entry of this agent matches this process";
  return new EveryhopError("permission-denied", `${message}: ${why}`, {
    hint: "`everyhop entry explain --pid PID` says which selectors a process has, and what entries lack",
  });
}

function show({ outDir, json }: FetchOptions, svids: readonly X509Svid[], bundles: X509Bundles): void {
  const files = Object.assign({}, ...svids.map((svid, index) => filesOf(svid, bundles, index)));
  if (outDir !== undefined) {
    writeSvidFiles(outDir, files);
  }
  const written = outDir === undefined ? [] : Object.keys(files).map((name) => join(outDir, name));
  if (json === true) {
    printJson({ svids: svids.map(describe), files: written });
    return;
  }
  for (const svid of svids) {
    const { spiffeId, notAfter } = describe(svid);
    print(`${spiffeId}  serial ${svid.serial}  good until ${notAfter}`);
  }
  for (const file of written.filter(existsSync)) {
    note(`wrote ${file}`);
  }
}

function filesOf(svid: X509Svid, bundles: X509Bundles, index: number): Record<string, string> {
  return {
    [`svid.${index}.pem`]: certificatesToPem(svid.chain),
    [`svid.${index}.key`]: formatPem("PRIVATE KEY", svid.keyDer),
    [`bundle.${index}.pem`]: certificatesToPem(bundles.get(trustDomainOf(svid.id)) ?? []),
  };
}

function describe({ id, serial, notBefore, notAfter, hint }: X509Svid) {
  return {
    spiffeId: id,
    serial,
    notBefore: new Date(notBefore).toISOString(),
    notAfter: new Date(notAfter).toISOString(),
    ...(hint === "" ? {} : { hint }),
  };
}

async function watch(options: Options): Promise<void> {
  if (options.type === "jwt") {
    return watchJwt(socketOf(options), options, stopSignal());
  }
  const source = open(options, makeLog("svid", { level: "error" }));
  const line = (body: object, text: string) =>
    options.json === true ? printJson({ time: new Date().toISOString(), ...body }) : print(text);
  source.svids.watch((svids) => {
    for (const svid of svids) {
      const known = describe(svid);
      line(known, `${new Date().toISOString()}  ${known.spiffeId}  serial ${known.serial}  until ${known.notAfter}`);
    }
  });
  source.state.watch((state) => {
    if (state.kind !== "ready" && state.kind !== "connecting") {
      note(`${state.kind}: ${state.message}`);
    }
  });
  const failed = new Promise<void>((resolve) => {
    source.state.watch((state) => {
      if (state.kind === "failed") {
        process.exitCode = 3;
        resolve();
      }
    });
  });
  const hold = setInterval(() => {}, 3_600_000);
  await Promise.race([stopSignal(), failed]);
  clearInterval(hold);
  source.close();
}

function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => resolve());
    }
  });
}
