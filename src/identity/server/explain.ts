/** Why a workload has no identity, as far as the server knows: what its agent may not hand out, and who hands an entry out. */
import { EveryhopError } from "../../core/base/errors.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import {
  type HandedOut,
  handedOut,
  type Obstacle,
  obstacleFor,
  type Registered,
} from "../../core/entries/handed-out.ts";
import { hintFor, mistakesOf } from "../../core/entries/hint.ts";
import { nearMisses } from "../../core/entries/near-miss.ts";
import { parseSelector, type Selector, selectorsMatch } from "../../core/entries/selector.ts";
import { parseSpiffeId, type SpiffeId, serverId } from "../../core/spiffe/id.ts";
import type { Registry } from "./registry.ts";

/** More are no help to a person, and cost the server a walk each. */
const MAX_ELSEWHERE = 10;
const MAX_AGENTS = 100;

export interface ExplainQuestion {
  /** Empty: whatever agent. */
  readonly agent: string;
  readonly selectors: readonly string[];
  readonly entryId: string;
}

/** The answer as a document, docs/json.md. Errors: `not-found`, `invalid-argument`. */
export function explain(registry: Registry, now: number, question: ExplainQuestion): object {
  const registered = registeredOf(registry, now);
  return question.entryId === ""
    ? explainWorkload(registry, registered, question.agent, question.selectors.map(parseSelector))
    : explainEntry(registry, registered, question.entryId);
}

function registeredOf(registry: Registry, now: number): Registered {
  return {
    entries: registry.entries(),
    agents: registry.nodes().map(({ id, selectors, banned, expiresAt, next }) => ({
      id,
      selectors,
      banned,
      cutOff: registry.isKilled(id),
      expiresAtMs: Math.max(expiresAt, next?.expiresAt ?? 0),
    })),
    trustDomain: registry.trustDomain,
    isCutOff: (id) => registry.isKilled(id),
    now,
  };
}

function explainWorkload(registry: Registry, registered: Registered, agent: string, selectors: readonly Selector[]) {
  const id = agent === "" ? null : known(registered, parseSpiffeId(agent));
  const found = new Set(selectors);
  const matching = registered.entries.filter((entry) => selectorsMatch(entry.selectors, found));
  const judged = matching.map((entry) => ({ entry, obstacle: obstacleOf(entry, id, registered) }));
  const matched = judged.flatMap(({ entry, obstacle }) => (obstacle === null ? [entry] : []));
  return {
    selectors,
    mistakes: mistakesOf(selectors),
    matched: matched.map((entry) => entry.id),
    identities: matched.map((entry) => entry.spiffeId),
    nearMisses: nearMisses(id === null ? registered.entries : registry.authorizedEntries(id), found).map(
      ({ entry, missing, instead }) => ({
        entryId: entry.id,
        spiffeId: entry.spiffeId,
        missing,
        instead,
        hints: missing.map((selector) => ({ selector, hint: hintFor(selector, found, { attestors: null }) })),
      }),
    ),
    // Entries that match, and that this agent (or, where none is meant, no agent) hands out.
    elsewhere: judged
      .flatMap(({ entry, obstacle }) => (obstacle === null ? [] : [{ entry, obstacle }]))
      .slice(0, MAX_ELSEWHERE)
      .map(({ entry, obstacle }) => ({
        entryId: entry.id,
        spiffeId: entry.spiffeId,
        parentId: entry.parentId,
        killed: registry.isKilled(entry.spiffeId),
        ...obstacle,
      })),
    ...(id === null ? {} : { agentOnServer: agentDocument(registered, id) }),
  };
}

function obstacleOf(entry: RegistrationEntry, agent: SpiffeId | null, registered: Registered): Obstacle | null {
  return agent === null ? (handedOut(entry, registered).obstacles[0] ?? null) : obstacleFor(entry, agent, registered);
}

function explainEntry(registry: Registry, registered: Registered, entryId: string): object {
  const entry = registry.entry(entryId);
  if (entry === null) {
    throw new EveryhopError("not-found", `there is no entry \`${entryId}\``, {
      hint: "`everyhop entry show` lists them",
    });
  }
  const { agents, obstacles }: HandedOut = handedOut(entry, registered);
  const { id, spiffeId, parentId, selectors, expiresAtMs } = entry;
  return {
    entry: {
      id,
      spiffeId,
      parentId,
      selectors,
      expiresAt: expiresAtMs === null ? null : new Date(expiresAtMs).toISOString(),
    },
    handedOutBy: agents.slice(0, MAX_AGENTS).map((agent) => agentDocument(registered, agent.id)),
    agents: agents.length,
    obstacles,
    // What no workload anywhere could have.
    hints: parentId === serverId(registered.trustDomain) ? [] : mistakesOf(selectors),
  };
}

function known(registered: Registered, id: SpiffeId): SpiffeId {
  if (!registered.agents.some((agent) => agent.id === id)) {
    throw new EveryhopError("not-found", `no agent \`${id}\` has attested`, {
      hint: "`everyhop agent list` shows those that have",
    });
  }
  return id;
}

function agentDocument({ agents, now }: Registered, id: SpiffeId): object {
  const agent = agents.find((one) => one.id === id);
  return {
    spiffeId: id,
    banned: agent?.banned ?? false,
    cutOff: agent?.cutOff ?? false,
    expired: (agent?.expiresAtMs ?? 0) <= now,
    expiresAt: new Date(agent?.expiresAtMs ?? 0).toISOString(),
    selectors: agent?.selectors ?? [],
  };
}
