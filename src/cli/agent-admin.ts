import type { Command } from "commander";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { Agent } from "../gen/spire/api/server/agent/v1/agent_pb.js";
import type { Agent as Message } from "../gen/spire/api/types/agent_pb.js";
import { SelectorMatch_MatchBehavior as SelectorMatch } from "../gen/spire/api/types/selector_pb.js";
import {
  each,
  idOfWire,
  oneOf,
  seconds,
  selector,
  spiffeId,
  timeOfWire,
  type WireSelector,
  wireId,
} from "./arguments.ts";
import { askServer } from "./ask-server.ts";
import { commandGroup } from "./command-group.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { print, printJson, table } from "./ui.ts";

interface ListOptions extends MeshOptions {
  readonly attestationType?: string;
  readonly selector?: WireSelector[];
  readonly banned?: boolean;
  readonly canReattest?: boolean;
  readonly json?: boolean;
}

interface OneOptions extends MeshOptions {
  readonly spiffeId: SpiffeId;
  readonly json?: boolean;
}

const YES_NO = { true: true, false: false };

export function define(program: Command): void {
  const agent = commandGroup(program, "agent", "agents: the processes on each node that attest workloads");
  filtered(agent.command("list"))
    .description("list the agents that attested")
    .addHelpText("after", "\nExample:\n  everyhop agent list --json")
    .action(listAgents);
  filtered(agent.command("count"))
    .description("count the agents that attested")
    .addHelpText("after", "\nExample:\n  everyhop agent count --attestation-type x509pop")
    .action(countAgents);
  addMeshOptions(agent.command("purge"))
    .description("forget agents that expired long ago and can attest again; banned ones stay banned")
    .option("--expired-for <duration>", "how long ago, at least", seconds, 30 * 86_400)
    .option("--dry-run", "say which, and do nothing")
    .option("--json", "as JSON")
    .addHelpText("after", "\nExample:\n  everyhop agent purge --expired-for 72h --dry-run")
    .action(purgeAgents);
  one(agent, "show", "show an agent").action(showAgent);
  one(agent, "ban", "throw an agent out, and keep it out until it is evicted").action(banAgent);
  one(agent, "evict", "forget an agent; it may come back by attesting again").action(evictAgent);
}

function filtered(command: Command): Command {
  return addMeshOptions(command)
    .option("--attestation-type <type>", "only those that attested in this way")
    .option("--selector <type:value>", "only those of which this was found; several times", each(selector))
    .option("--banned <true|false>", "only those that are banned, or are not", oneOf(YES_NO))
    .option("--can-reattest <true|false>", "only those that can attest again, or cannot", oneOf(YES_NO))
    .option("--json", "as JSON");
}

function one(agent: Command, name: string, description: string): Command {
  return addMeshOptions(agent.command(name))
    .description(description)
    .requiredOption("--spiffe-id <id>", "the agent's SPIFFE ID", spiffeId)
    .option("--json", "as JSON")
    .addHelpText(
      "after",
      `\nExample:\n  everyhop agent ${name} --spiffe-id spiffe://example.com/spire/agent/join_token/TOKEN`,
    );
}

function agentDocument(agent: Message) {
  return {
    spiffeId: idOfWire(agent.id),
    attestationType: agent.attestationType,
    expiresAt: timeOfWire(agent.x509svidExpiresAt),
    banned: agent.banned,
    serial: agent.x509svidSerialNumber,
    canReattest: agent.canReattest,
    selectors: agent.selectors.map(({ type, value }) => `${type}:${value}`),
    version: agent.agentVersion,
  };
}

const PAGE_SIZE = 1_000;

function filterOf(options: ListOptions) {
  return {
    byAttestationType: options.attestationType ?? "",
    ...(options.selector === undefined
      ? {}
      : { bySelectorMatch: { selectors: options.selector, match: SelectorMatch.MATCH_SUPERSET } }),
    ...(options.banned === undefined ? {} : { byBanned: options.banned }),
    ...(options.canReattest === undefined ? {} : { byCanReattest: options.canReattest }),
  };
}

async function countAgents(options: ListOptions): Promise<void> {
  const { count } = await askServer(options, Agent, (client) => client.countAgents({ filter: filterOf(options) }));
  if (options.json === true) {
    printJson({ count });
  } else {
    print(`${count} attested ${count === 1 ? "agent" : "agents"}`);
  }
}

interface PurgeOptions extends MeshOptions {
  readonly expiredFor: number;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

async function purgeAgents(options: PurgeOptions): Promise<void> {
  const before = Date.now() - options.expiredFor * 1_000;
  const expired = (await agentsBy({ ...options, banned: false, canReattest: true })).filter(
    ({ expiresAt }) => expiresAt !== null && Date.parse(expiresAt) < before,
  );
  if (options.dryRun !== true) {
    await askServer(options, Agent, async (client) => {
      for (const { spiffeId: id } of expired) {
        await client.deleteAgent({ id: wireId(id as SpiffeId) });
      }
    });
  }
  const purged = expired.map(({ spiffeId: id }) => id);
  if (options.json === true) {
    printJson({ purged, dryRun: options.dryRun === true });
  } else {
    const verb = options.dryRun === true ? "Would purge" : "Purged";
    print(purged.length === 0 ? "No agents to purge." : purged.map((id) => `${verb} ${id}`).join("\n"));
  }
}

function agentsBy(options: ListOptions) {
  const filter = filterOf(options);
  return askServer(options, Agent, async (client) => {
    const all: Message[] = [];
    let pageToken = "";
    do {
      const page = await client.listAgents({ filter, pageSize: PAGE_SIZE, pageToken });
      all.push(...page.agents);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return all.map(agentDocument);
  });
}

async function listAgents(options: ListOptions): Promise<void> {
  const agents = await agentsBy(options);
  if (options.json === true) {
    printJson({ agents });
    return;
  }
  const rows = agents.map((agent) => [
    agent.spiffeId,
    agent.attestationType,
    agent.banned ? "banned" : (agent.expiresAt ?? ""),
  ]);
  print(agents.length === 0 ? "No agent has attested." : table([["SPIFFE ID", "ATTESTED BY", "EXPIRES"], ...rows]));
}

async function showAgent(options: OneOptions): Promise<void> {
  const agent = agentDocument(
    await askServer(options, Agent, (client) => client.getAgent({ id: wireId(options.spiffeId) })),
  );
  if (options.json === true) {
    printJson(agent);
    return;
  }
  print(`SPIFFE ID        : ${agent.spiffeId}`);
  print(`Attestation type : ${agent.attestationType}`);
  print(`Expires          : ${agent.expiresAt ?? ""}`);
  print(`Serial number    : ${agent.serial}`);
  print(`Can re-attest    : ${agent.canReattest}`);
  print(`Banned           : ${agent.banned}`);
  for (const found of agent.selectors) {
    print(`Selector         : ${found}`);
  }
}

async function banAgent(options: OneOptions): Promise<void> {
  await askServer(options, Agent, (client) => client.banAgent({ id: wireId(options.spiffeId) }));
  if (options.json === true) {
    printJson({ spiffeId: options.spiffeId, banned: true });
  } else {
    print(`Banned ${options.spiffeId}`);
  }
}

async function evictAgent(options: OneOptions): Promise<void> {
  await askServer(options, Agent, (client) => client.deleteAgent({ id: wireId(options.spiffeId) }));
  if (options.json === true) {
    printJson({ spiffeId: options.spiffeId, evicted: true });
  } else {
    print(`Evicted ${options.spiffeId}`);
  }
}
