import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { credentials, status } from "@grpc/grpc-js";
import { type Command, InvalidArgumentError } from "commander";
import { EveryhopError, toEveryhopError } from "../core/base/errors.ts";
import { selectorFault } from "../core/entries/selector.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { Agent } from "../gen/everyhop/agent/agent_pb.js";
import { makeClient } from "../io/rpc/adapter.ts";
import { fromStatus } from "../io/rpc/errors.ts";
import { each, spiffeId } from "./arguments.ts";
import { askAdmin } from "./ask-admin.ts";
import { commandGroup } from "./command-group.ts";
import {
  describeEntry,
  describeWorkload,
  type EntryAnswer,
  type ServerAnswer,
  type WorkloadAnswer,
} from "./explain-text.ts";
import { addMeshOptions, findMesh, type MeshOptions } from "./find-mesh.ts";
import { print, printJson } from "./ui.ts";

interface Options extends MeshOptions {
  readonly pid?: number;
  readonly selector?: readonly string[];
  readonly entryId?: string;
  readonly agent?: SpiffeId;
  readonly agentAdminSocket?: string;
  readonly json?: boolean;
}

const DEFAULT_SOCKET = "/var/lib/everyhop/agent/admin.sock";

const HELP = `
With --pid the agent of this machine looks at the process as if it had asked, and says which selectors it has, which entries they
match, and for those that come nearest what is missing and why. With --selector it does so for a process that is not there. With
--entry-id the server says which agents hand that entry out, and why none does. What only the server knows (entries of other agents,
expired ones, banned agents) is added where its admin socket can be opened.

Examples:
  everyhop entry explain --pid 4711
  everyhop entry explain --pid $(pgrep -n web) --json
  everyhop entry explain --selector unix:uid:1001 --selector unix:path:/usr/bin/web
  everyhop entry explain --entry-id 2f6c1a1e-3d0b-4f7e-9a53-1f2f7a0e9c11`;

export function define(program: Command): void {
  const entry = commandGroup(program, "entry", "registration entries: which workload gets which identity");
  addMeshOptions(entry.command("explain"))
    .description("why a process gets an identity, or none; which agents hand an entry out")
    .option("--pid <pid>", "a process of this machine", readPid)
    .option(
      "--selector <type:value>",
      "one of a process that is not there; may be given several times",
      each(readSelector),
    )
    .option("--entry-id <id>", "an entry, instead of a process")
    .option("--agent <spiffe-id>", "with --selector: as the server sees this agent", spiffeId)
    .option("--agent-admin-socket <path>", "the agent's admin socket, instead of the one of the mesh of --dir")
    .option("--json", "as JSON")
    .addHelpText("after", HELP)
    .action(run);
}

async function run(options: Options): Promise<void> {
  const { pid, selector, entryId } = options;
  if ([pid, selector, entryId].filter((one) => one !== undefined).length !== 1) {
    throw new EveryhopError("usage", "give one of --pid, --selector and --entry-id");
  }
  const show = <T>(answer: T, text: (answer: T) => string) =>
    options.json === true ? printJson(answer) : print(text(answer));
  if (entryId !== undefined) {
    show(await askAdmin<EntryAnswer>(options, (admin) => admin.explainEntry({ entryId })), describeEntry);
  } else {
    show(await explainWorkload(options), (answer) => describeWorkload(answer, Date.now()));
  }
}

/** What the agent says, and what the server knows beyond it; of selectors the server alone, where there is no agent. */
async function explainWorkload(options: Options): Promise<WorkloadAnswer> {
  const { pid, selector = [], agent } = options;
  if (pid === undefined && (agent !== undefined || !hasAgent(options))) {
    const answer = await askServer(options, agent ?? "", selector);
    return { pid: null, attestors: [], agent: null, ...answer };
  }
  const local = await askAgent(agentSocket(options), pid === undefined ? { selectors: [...selector] } : { pid });
  try {
    const { matched, elsewhere, agentOnServer } = await askServer(
      options,
      local.agent?.spiffeId ?? "",
      local.selectors,
    );
    const notSynced = matched.filter((id) => !local.matched.includes(id));
    return {
      ...local,
      elsewhere,
      notSynced,
      ...(agentOnServer === undefined ? {} : { agentOnServer }),
      serverProblem: null,
    };
  } catch (error) {
    return { ...local, serverProblem: toEveryhopError(error).message };
  }
}

function askServer(options: Options, agent: string, selectors: readonly string[]): Promise<ServerAnswer> {
  return askAdmin<ServerAnswer>(options, (admin) => admin.explainEntry({ agent, selectors: [...selectors] }));
}

function readPid(text: string): number {
  const pid = Number(text);
  if (!Number.isInteger(pid) || pid <= 0) {
    throw new InvalidArgumentError(`\`${text}\` is not a process id`);
  }
  return pid;
}

function readSelector(text: string): string {
  const fault = selectorFault(text);
  if (fault !== null) {
    throw new InvalidArgumentError(fault);
  }
  return text;
}

function hasAgent(options: Options): boolean {
  try {
    return existsSync(agentSocket(options));
  } catch {
    return false;
  }
}

/** As given, else that of the running mesh, else where a service of the machine has it. */
function agentSocket(options: Options): string {
  if (options.agentAdminSocket !== undefined) {
    return resolve(options.agentAdminSocket);
  }
  try {
    const { stateDir, agentSocket: workload } = findMesh(options);
    const beside = join(dirname(workload.replace(/^unix:(\/\/)?/, "")), "agent-admin.sock");
    return [join(stateDir, "agent", "admin.sock"), beside].find(existsSync) ?? beside;
  } catch (error) {
    if (existsSync(DEFAULT_SOCKET)) {
      return DEFAULT_SOCKET;
    }
    throw error;
  }
}

async function askAgent(socket: string, about: { pid: number } | { selectors: string[] }): Promise<WorkloadAnswer> {
  const client = makeClient(Agent, `unix:${socket}`, credentials.createInsecure());
  try {
    return toJson(StructSchema, await client.explain(about)) as unknown as WorkloadAnswer;
  } catch (error) {
    throw (error as { code?: unknown }).code === status.UNAVAILABLE && !isAgents(error)
      ? new EveryhopError("unavailable", `no agent answers on \`${socket}\``, {
          hint:
            "run the command as the agent's user, or name its socket with `--agent-admin-socket`; " +
            "an agent that was banned or evicted ends, and its log says so",
          cause: error,
        })
      : fromStatus(error);
  } finally {
    client.close();
  }
}

/** Whether the agent itself said so: its attestors may all be unavailable. */
function isAgents(error: unknown): boolean {
  const { metadata } = error as { metadata?: { get(key: string): unknown[] } };
  return (metadata?.get("everyhop-error-bin").length ?? 0) > 0;
}
