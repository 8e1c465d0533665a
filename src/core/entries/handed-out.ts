/** Which agents hand an entry out, and why none does. */
import { pathOf, type SpiffeId, serverId, type TrustDomain } from "../spiffe/id.ts";
import { danglingMessage, danglingParents, missingAlias } from "./dangling.ts";
import type { RegistrationEntry } from "./entry.ts";
import { type Selector, selectorsMatch } from "./selector.ts";

/** What the server knows of an agent. */
export interface AgentFacts {
  readonly id: SpiffeId;
  readonly selectors: readonly Selector[];
  readonly banned: boolean;
  readonly cutOff: boolean;
  readonly expiresAtMs: number;
}

export interface Registered {
  readonly entries: readonly RegistrationEntry[];
  readonly agents: readonly AgentFacts[];
  readonly trustDomain: TrustDomain;
  readonly isCutOff: (id: SpiffeId) => boolean;
  readonly now: number;
}

/** Why an entry gives nobody an identity, or not this agent's workloads. */
export interface Obstacle {
  readonly reason:
    | "expired"
    | "cut-off"
    | "for-nodes"
    | "for-store"
    | "dangling-parent"
    | "agent-not-attested"
    | "no-node-matches"
    | "agent-banned"
    | "agent-expired"
    | "agent-cut-off"
    | "other-agent";
  readonly message: string;
  readonly hint: string;
}

export interface HandedOut {
  /** Agents that would hand it out, also those that cannot now. */
  readonly agents: readonly AgentFacts[];
  /** Empty where some agent hands it out. */
  readonly obstacles: readonly Obstacle[];
}

/** Who hands `entry` out. Walks up from its parent: linear in the entries. */
export function handedOut(entry: RegistrationEntry, registered: Registered): HandedOut {
  const agents = agentsAbove(entry.parentId, registered);
  const obstacles = [...ownObstacles(entry, registered)];
  if (entry.parentId !== serverId(registered.trustDomain)) {
    if (agents.length === 0) {
      obstacles.push(nobodyAbove(entry, registered));
    } else if (!agents.some((agent) => troubleOf(agent, registered.now) === null)) {
      obstacles.push(...agents.map((agent) => troubleOf(agent, registered.now)).filter((one) => one !== null));
    }
  }
  return { agents, obstacles };
}

/** Why `agent` does not hand `entry` out; null where it does. */
export function obstacleFor(entry: RegistrationEntry, agent: SpiffeId, registered: Registered): Obstacle | null {
  const { agents, obstacles } = handedOut(entry, registered);
  const own = agents.find(({ id }) => id === agent);
  if (own !== undefined) {
    return [...ownObstacles(entry, registered)][0] ?? troubleOf(own, registered.now);
  }
  const [first] = obstacles;
  if (first !== undefined) {
    return first;
  }
  const others = agents.slice(0, 3).map(({ id }) => id);
  return {
    reason: "other-agent",
    message: `it is for workloads of ${agents.length > 3 ? `${agents.length} other agents, as ${others[0]}` : others.join(", ")}`,
    hint: `its parent is ${entry.parentId}: make an entry whose parent is ${agent}, or a node alias that both agents match`,
  };
}

function* ownObstacles(entry: RegistrationEntry, { trustDomain, isCutOff, now }: Registered): Generator<Obstacle> {
  if (entry.expiresAtMs !== null && entry.expiresAtMs <= now) {
    const message = `it expired at ${new Date(entry.expiresAtMs).toISOString()}`;
    yield { reason: "expired", message, hint: "`everyhop entry update --entry-expiry` gives it a later end" };
  }
  if (isCutOff(entry.spiffeId)) {
    const hint = `\`everyhop restore ${entry.spiffeId}\` undoes it`;
    yield { reason: "cut-off", message: `${entry.spiffeId} is cut off by an order of \`everyhop kill\``, hint };
  }
  if (entry.parentId === serverId(trustDomain)) {
    yield {
      reason: "for-nodes",
      message: "it is a node alias: it stands for agents whose nodes match it, and is no workload's identity",
      hint: `make an entry whose parent is ${entry.spiffeId} for the workloads of those nodes`,
    };
  }
  if (entry.storeSvid) {
    const message = "it is for a secret store, and not handed out by the Workload API";
    yield { reason: "for-store", message, hint: "make it without `--store-svid`" };
  }
}

/** The agents that a chain of parents from `parent` leads to. */
function agentsAbove(parent: SpiffeId, { entries, agents, trustDomain }: Registered): readonly AgentFacts[] {
  const named = Map.groupBy(entries, ({ spiffeId }) => spiffeId);
  const server = serverId(trustDomain);
  const found = new Set<AgentFacts>();
  const visited = new Set<SpiffeId>([server]);
  const ids = [parent];
  for (let id = ids.pop(); id !== undefined; id = ids.pop()) {
    if (visited.has(id)) {
      continue;
    }
    visited.add(id);
    for (const agent of agents.filter((one) => one.id === id)) {
      found.add(agent);
    }
    for (const above of named.get(id) ?? []) {
      if (above.parentId === server) {
        for (const agent of agents.filter(({ selectors }) => selectorsMatch(above.selectors, new Set(selectors)))) {
          found.add(agent);
        }
      } else {
        ids.push(above.parentId);
      }
    }
  }
  return agents.filter((agent) => found.has(agent));
}

function nobodyAbove({ parentId }: RegistrationEntry, { entries, agents, trustDomain }: Registered): Obstacle {
  const [some] = agents;
  if (danglingParents(entries, trustDomain).has(parentId)) {
    return {
      reason: "dangling-parent",
      message: danglingMessage(parentId),
      hint: missingAlias(parentId, some?.selectors),
    };
  }
  if (pathOf(parentId).startsWith("/spire/agent/")) {
    return {
      reason: "agent-not-attested",
      message: `its parent ${parentId} is the ID of an agent that has not attested`,
      hint: "`everyhop agent list` shows those that have; an agent that joins by a token has a new ID each time, a node alias stays",
    };
  }
  const aliases = entries.filter((entry) => entry.parentId === serverId(trustDomain) && entry.spiffeId === parentId);
  const wanted = aliases.map(({ selectors }) => selectors.join(" and ")).join(", or ");
  return {
    reason: "no-node-matches",
    message: `its parent ${parentId} stands for nodes with ${wanted || "selectors"}, and no agent that attested has them`,
    hint: "`everyhop agent show --spiffe-id ID` lists the selectors of an agent's node",
  };
}

function troubleOf({ id, banned, cutOff, expiresAtMs }: AgentFacts, now: number): Obstacle | null {
  if (banned) {
    const hint = `\`everyhop agent evict --spiffe-id ${id}\` lifts the ban; it then has to attest anew`;
    return { reason: "agent-banned", message: `the agent ${id} is banned`, hint };
  }
  if (cutOff) {
    return {
      reason: "agent-cut-off",
      message: `the agent ${id} is cut off`,
      hint: `\`everyhop restore ${id}\` undoes it`,
    };
  }
  if (expiresAtMs <= now) {
    const message = `the agent ${id} has an SVID that expired at ${new Date(expiresAtMs).toISOString()}`;
    return {
      reason: "agent-expired",
      message,
      hint: "look at its log: it cannot reach the server, or has to attest anew",
    };
  }
  return null;
}
