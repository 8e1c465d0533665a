/** `spire-server agent list|show|count|ban|evict|purge`, `spire-server token generate`. */
import { create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import {
  Agent,
  CountAgentsResponseSchema,
  ListAgentsResponseSchema,
} from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { AgentSchema, type Agent as Message } from "../../gen/spire/api/types/agent_pb.js";
import { JoinTokenSchema } from "../../gen/spire/api/types/jointoken_pb.js";
import { idOfWire } from "../arguments.ts";
import { print } from "../ui.ts";
import {
  answer,
  ask,
  type Commands,
  goTime,
  isJson,
  pages,
  plural,
  readDuration,
  readId,
  required,
  serverCommand,
} from "./command.ts";
import { type Flags, flag, type Given, text, UsageError } from "./flags.ts";
import { SELECTOR_FLAGS, selectorMatch } from "./match.ts";

const FILTERS: Flags = {
  ...SELECTOR_FLAGS,
  attestationType: text("Filter by attestation type, like join_token or x509pop."),
  canReattest: text("'true': agents that can reattest, 'false': agents that can't, other value will return all."),
  banned: text("'true': banned agents, 'false': not banned agents, other value will return all."),
  expiresBefore: text('Filter by expiration time (format: "2006-01-02 15:04:05 -0700 -07")'),
};

function filterOf(given: Given) {
  const selectors = selectorMatch(given);
  const choice = (name: string) => ({ true: true, false: false })[given.text(name)];
  const [canReattest, banned] = [choice("canReattest"), choice("banned")];
  return {
    byAttestationType: given.text("attestationType"),
    byExpiresBefore: given.text("expiresBefore"),
    ...(selectors === null ? {} : { bySelectorMatch: selectors }),
    ...(canReattest === undefined ? {} : { byCanReattest: canReattest }),
    ...(banned === undefined ? {} : { byBanned: banned }),
  };
}

/** As SPIRE prints it, with a blank line after each. */
function agentText(agent: Message): string {
  const rows: [string, string | false][] = [
    ["SPIFFE ID", idOfWire(agent.id)],
    ["Attestation type", agent.attestationType],
    ["Expiration time", goTime(agent.x509svidExpiresAt)],
    ["Banned", agent.banned && "true"],
    ["Serial number", !agent.banned && agent.x509svidSerialNumber],
    ["Can re-attest", String(agent.canReattest)],
    ["Agent version", agent.agentVersion || false],
  ];
  return `${rows.flatMap(([name, value]) => (value === false ? [] : [`${name.padEnd(17)} : ${value}`])).join("\n")}\n`;
}

function listed(given: Given, filter = {}): Promise<Message[]> {
  return ask(given, Agent, (client) =>
    pages(
      (pageToken) => client.listAgents({ filter, pageSize: 1_000, pageToken }),
      (page) => page.agents,
    ),
  );
}

async function listAgents(given: Given): Promise<void> {
  const agents = await listed(given, filterOf(given));
  answer(given, ListAgentsResponseSchema, create(ListAgentsResponseSchema, { agents }), () => {
    if (agents.length === 0) {
      print("No attested agents found");
      return;
    }
    print(`Found ${plural(agents.length, "attested agent")}:\n`);
    for (const agent of agents) {
      print(agentText(agent));
    }
  });
}

async function showAgent(given: Given): Promise<void> {
  const id = readId(required(given, "spiffeID", "a SPIFFE ID is required"));
  const agent = await ask(given, Agent, (client) => client.getAgent({ id }));
  answer(given, AgentSchema, agent, () => {
    print(`Found an attested agent given its SPIFFE ID\n\n${agentText(agent).trimEnd()}\n`);
    for (const { type, value } of agent.selectors) {
      print(`Selectors         : ${type}:${value}`);
    }
  });
}

async function countAgents(given: Given): Promise<void> {
  const response = await ask(given, Agent, (client) => client.countAgents({ filter: filterOf(given) }));
  answer(given, CountAgentsResponseSchema, response, ({ count }) => print(plural(count, "attested agent")));
}

async function banAgent(given: Given): Promise<void> {
  const id = readId(required(given, "spiffeID", "a SPIFFE ID is required"));
  await ask(given, Agent, (client) => client.banAgent({ id }));
  answer(given, EmptySchema, create(EmptySchema), () => print("Agent banned successfully"));
}

async function evictAgent(given: Given): Promise<void> {
  const id = readId(required(given, "spiffeID", "a SPIFFE ID is required"));
  await ask(given, Agent, (client) => client.deleteAgent({ id }));
  answer(given, EmptySchema, create(EmptySchema), () => print("Agent evicted successfully"));
}

const DEFAULT_EXPIRED_FOR = 30 * 86_400;

/** Forgets agents that expired long ago; those that were banned stay so. */
async function purgeAgents(given: Given): Promise<void> {
  const expiredFor = given.has("expiredFor") ? readDuration(given, "expiredFor") : DEFAULT_EXPIRED_FOR;
  const before = Date.now() / 1_000 - expiredFor;
  const agents = await listed(given, { byCanReattest: true });
  const expired = agents.filter(({ banned, x509svidExpiresAt }) => !banned && Number(x509svidExpiresAt) < before);
  const results: { agent_id: string; deleted: boolean; error: string }[] = [];
  for (const { id } of expired) {
    const one = { agent_id: idOfWire(id), deleted: false, error: "" };
    if (!given.flag("dryRun")) {
      try {
        await ask(given, Agent, (client) => client.deleteAgent(id === undefined ? {} : { id }));
        one.deleted = true;
      } catch (error) {
        one.error = (error as Error).message;
      }
    }
    results.push(one);
  }
  if (isJson(given)) {
    print(JSON.stringify([{ expired_agents: results }]));
    return;
  }
  if (results.length === 0) {
    print("No agents to purge.");
    return;
  }
  print(`Found ${plural(results.length, "expired agent")}\n`);
  const title = given.flag("dryRun") ? "\nAgents that can be purged:" : "Agents purged:";
  print(title);
  for (const { agent_id } of results.filter(({ error }) => error === "")) {
    print(`SPIFFE ID         : ${agent_id}`);
  }
  const failed = results.filter(({ error }) => error !== "");
  if (failed.length > 0) {
    print("Agents not purged:");
    for (const { agent_id, error } of failed) {
      print(`SPIFFE ID         : ${agent_id}\nError             : ${error}`);
    }
    throw new UsageError("failed to purge one or more agents");
  }
}

async function generateToken(given: Given): Promise<void> {
  const id = given.text("spiffeID");
  const ttl = given.has("ttl") ? given.number("ttl") : 600;
  const token = await ask(given, Agent, (client) =>
    client.createJoinToken({ ttl, ...(id === "" ? {} : { agentId: readId(id) }) }),
  );
  answer(given, JoinTokenSchema, token, () => {
    print(`Token: ${token.value}`);
    if (id === "") {
      print("Warning: Missing SPIFFE ID.");
    }
  });
}

const ID = { spiffeID: text("The SPIFFE ID of the agent (agent identity)") };

export const AGENT_COMMANDS: Commands = {
  "agent list": serverCommand("Lists attested agents and their SPIFFE IDs", FILTERS, listAgents),
  "agent show": serverCommand("Shows the details of an attested agent given its SPIFFE ID", ID, showAgent),
  "agent count": serverCommand("Count attested agents", FILTERS, countAgents),
  "agent ban": serverCommand("Ban an attested agent given its SPIFFE ID", ID, banAgent),
  "agent evict": serverCommand("Evicts an attested agent given its SPIFFE ID", ID, evictAgent),
  "agent purge": serverCommand(
    "Purge agents that expired",
    {
      expiredFor: text("Amount of time that has passed since the agent's SVID has expired (default 720h)"),
      dryRun: flag("Perform no action, but print the agents that would be purged"),
    },
    purgeAgents,
  ),
  "token generate": serverCommand(
    "Generates a join token",
    {
      ttl: text("Token TTL in seconds (default 600)"),
      spiffeID: text("Additional SPIFFE ID to assign the token owner (optional)"),
    },
    generateToken,
  ),
};
