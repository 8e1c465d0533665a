import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { credentials, status } from "@grpc/grpc-js";
import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { Agent } from "../gen/everyhop/agent/agent_pb.js";
import { makeClient } from "../io/rpc/adapter.ts";
import { fromStatus } from "../io/rpc/errors.ts";
import { askAdmin } from "./ask-admin.ts";
import { commandGroup } from "./command-group.ts";
import { addMeshOptions, findMesh, type MeshOptions } from "./find-mesh.ts";
import { printable } from "./printable.ts";
import { print, printJson } from "./ui.ts";

interface Options extends MeshOptions {
  readonly pid: number;
  readonly agentAdminSocket?: string;
  readonly json?: boolean;
}

interface NearMiss {
  readonly entryId: string;
  readonly spiffeId: string;
  readonly missing: readonly string[];
  readonly instead?: Readonly<Record<string, readonly string[]>>;
}

/** What the agent says of a process; `elsewhere` is the server's addition. */
interface Explanation {
  readonly pid: number;
  readonly selectors: readonly string[];
  /** Entry ids. */
  readonly matched: readonly string[];
  readonly identities: readonly string[];
  readonly nearMisses: readonly NearMiss[];
  readonly agent: { readonly spiffeId: string; readonly syncedAt: string | null };
  readonly elsewhere?: readonly {
    readonly entryId: string;
    readonly spiffeId: string;
    readonly parentId: string;
    readonly killed: boolean;
  }[];
}

const DEFAULT_SOCKET = "/var/lib/everyhop/agent/admin.sock";

export function define(program: Command): void {
  const entry = commandGroup(program, "entry", "registration entries: which workload gets which identity");
  addMeshOptions(entry.command("explain"))
    .description("which identities a process of this machine gets, and what it lacks for others")
    .requiredOption("--pid <pid>", "the process", readPid)
    .option("--agent-admin-socket <path>", "the agent's admin socket, instead of the one of the mesh of --dir")
    .option("--json", "as JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  everyhop entry explain --pid 4711\n  everyhop entry explain --pid $(pgrep -n web) --json",
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  const local = await askAgent(agentSocket(options), options.pid);
  const explanation = { ...local, ...(await askServer(options, local)) };
  if (options.json === true) {
    printJson(explanation);
  } else {
    print(describe(explanation));
  }
}

function readPid(text: string): number {
  const pid = Number(text);
  if (!Number.isInteger(pid) || pid <= 0) {
    throw new EveryhopError("usage", `\`${text}\` is not a process id`);
  }
  return pid;
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

async function askAgent(socket: string, pid: number): Promise<Explanation> {
  const client = makeClient(Agent, `unix:${socket}`, credentials.createInsecure());
  try {
    return toJson(StructSchema, await client.explain({ pid })) as unknown as Explanation;
  } catch (error) {
    throw (error as { code?: unknown }).code === status.UNAVAILABLE
      ? new EveryhopError("unavailable", `no agent answers on \`${socket}\``, {
          hint: "run the command as the agent's user, or name its socket with `--agent-admin-socket`",
          cause: error,
        })
      : fromStatus(error);
  } finally {
    client.close();
  }
}

/** What the server knows beyond the agent: entries that would match, under another parent. Nothing where it is not to be had. */
async function askServer(options: Options, { agent, selectors }: Explanation): Promise<Partial<Explanation>> {
  try {
    const { elsewhere, nearMisses } = await askAdmin<Explanation>(options, (admin) =>
      admin.explainEntry({ agent: agent.spiffeId, selectors: [...selectors] }),
    );
    return { ...(elsewhere === undefined ? {} : { elsewhere }), nearMisses };
  } catch {
    return {};
  }
}

function describe(explanation: Explanation): string {
  const { pid, selectors, identities, matched, nearMisses, agent, elsewhere = [] } = explanation;
  const lines = [`process ${pid} has`, ...selectors.map((selector) => `  ${printable(selector)}`), ""];
  if (identities.length === 0) {
    lines.push("no entry matches: it gets no identity");
  } else {
    lines.push("it gets", ...identities.map((id, index) => `  ${id}  (entry ${matched[index]})`));
  }
  for (const { entryId, spiffeId, missing, instead = {} } of nearMisses) {
    lines.push("", `not ${spiffeId} (entry ${entryId}): it lacks`);
    for (const selector of missing) {
      const others = (instead[selector] ?? []).map(printable).join(", ");
      lines.push(`  ${printable(selector)}${others === "" ? "" : `   it has ${others}`}`);
    }
  }
  for (const { entryId, spiffeId, parentId, killed } of elsewhere) {
    const why = killed ? "its identity is cut off" : `it is for ${parentId}, or has expired`;
    lines.push("", `entry ${entryId} (${spiffeId}) would match, but ${why}`);
  }
  lines.push("", `agent ${agent.spiffeId}, in step with the server ${agent.syncedAt ?? "never"}`);
  return lines.join("\n");
}
