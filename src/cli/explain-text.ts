/** The answers of `entry explain`, as people read them: first what is the case, then what to do. */
import type { Selector } from "../core/entries/selector.ts";
import { withoutSecrets } from "../core/entries/selector-kinds.ts";
import { printable } from "./printable.ts";

export interface NearMiss {
  readonly entryId: string;
  readonly spiffeId: string;
  readonly missing: readonly string[];
  readonly hints?: readonly { readonly selector: string; readonly hint: string }[];
}

export interface Elsewhere {
  readonly entryId: string;
  readonly spiffeId: string;
  readonly parentId: string;
  readonly message?: string;
  readonly hint?: string;
}

export interface AgentOnServer {
  readonly spiffeId: string;
  readonly banned: boolean;
  readonly cutOff: boolean;
  readonly expired: boolean;
  readonly expiresAt: string;
}

export interface ServerAnswer {
  readonly selectors: readonly string[];
  /** Entry ids, and whose identities they are. */
  readonly matched: readonly string[];
  readonly identities: readonly string[];
  readonly nearMisses: readonly NearMiss[];
  /** Of the selectors given: what no workload could have. */
  readonly mistakes?: readonly { readonly selector: string; readonly hint: string }[];
  /** Entries that match, and that this agent does not hand out. */
  readonly elsewhere: readonly Elsewhere[];
  readonly agentOnServer?: AgentOnServer;
}

export interface WorkloadAnswer extends Omit<ServerAnswer, "elsewhere"> {
  readonly pid: number | null;
  readonly process?: { readonly uid: number; readonly program: string | null; readonly parentPid: number | null };
  readonly attestors?: readonly { readonly kind: string; readonly error: string | null; readonly hint?: string }[];
  readonly svids?: readonly { readonly entryId: string; readonly ready: boolean; readonly failure: string | null }[];
  readonly agent: {
    readonly spiffeId: string;
    readonly syncedAt: string | null;
    readonly problem?: string | null;
    readonly entries?: number;
  } | null;
  readonly elsewhere?: readonly Elsewhere[];
  /** Entries that the server would have this agent hand out, and that have not reached it. */
  readonly notSynced?: readonly string[];
  /** Why the server was not asked. */
  readonly serverProblem?: string | null;
}

export function describeWorkload(answer: WorkloadAnswer, now: number): string {
  const sections = [
    headline(answer),
    aboutAgent(answer, now),
    section(
      "it has",
      answer.selectors.map((selector) => printable(withoutSecrets(selector as Selector))),
    ),
    ...(answer.mistakes ?? []).map(
      ({ selector, hint }) => `no workload has ${printable(selector)}\n    ${printable(hint)}`,
    ),
    section("attestors that failed", failedAttestors(answer)),
    ...(answer.nearMisses.length > 0 && answer.identities.length === 0 ? ["the entries that come nearest:"] : []),
    ...answer.nearMisses.map(describeMiss),
    ...(answer.elsewhere ?? []).map(describeElsewhere),
    section("the server has these for it, and they have not reached the agent yet", answer.notSynced ?? []),
    typeof answer.serverProblem === "string"
      ? `the server was not asked (${printable(answer.serverProblem)}): entries of other agents, expired ones and bans are not shown`
      : "",
  ];
  return sections.filter((text) => text !== "").join("\n\n");
}

function headline({ pid, process, identities, matched, svids = [] }: WorkloadAnswer): string {
  const who = pid === null ? "a process with these selectors" : `process ${pid}`;
  const runs =
    process === undefined
      ? []
      : [`  it runs ${printable(process.program ?? "a program that the agent may not see")} as uid ${process.uid}`];
  if (matched.length === 0) {
    return [`${who} gets no identity: no entry matches it`, ...runs].join("\n");
  }
  const lines = matched.map((entryId, index) => {
    const svid = svids.find((one) => one.entryId === entryId);
    const waits =
      svid === undefined || svid.ready
        ? ""
        : `, which has no SVID yet${svid.failure === null ? "" : `: ${printable(svid.failure)}`}`;
    return `  ${identities[index] ?? ""}  (entry ${entryId})${waits}`;
  });
  return [`${who} gets`, ...lines, ...runs].join("\n");
}

function aboutAgent({ agent, agentOnServer }: WorkloadAnswer, now: number): string {
  if (agent === null) {
    return agentOnServer === undefined
      ? ""
      : [`agent ${agentOnServer.spiffeId}`, ...troubles(agentOnServer)].join("\n");
  }
  const { spiffeId, syncedAt, problem = null, entries } = agent;
  const synced =
    syncedAt === null
      ? "never in step with the server"
      : `in step with the server ${age(Date.parse(syncedAt), now)} ago, ${syncedAt}`;
  return [
    `agent ${spiffeId}${entries === undefined ? "" : `, ${entries} ${entries === 1 ? "entry" : "entries"}`}`,
    `  ${synced}`,
    ...(problem === null ? [] : [`  not now: ${printable(problem)}`]),
    ...(agentOnServer === undefined ? [] : troubles(agentOnServer)),
  ].join("\n");
}

function troubles({ spiffeId, banned, cutOff, expired, expiresAt }: AgentOnServer): string[] {
  return [
    ...(banned
      ? [`  it is BANNED: \`everyhop agent evict --spiffe-id ${spiffeId}\` lifts that, and it attests anew`]
      : []),
    ...(cutOff ? [`  it is CUT OFF: \`everyhop restore ${spiffeId}\` undoes that`] : []),
    ...(expired ? [`  its own SVID EXPIRED at ${expiresAt}`] : []),
  ];
}

function failedAttestors({ attestors = [] }: WorkloadAnswer): string[] {
  return attestors.flatMap(({ kind, error, hint }) =>
    error === null ? [] : [`${kind}: ${printable(error)}`, ...(hint === undefined ? [] : [`  ${printable(hint)}`])],
  );
}

function describeMiss({ entryId, spiffeId, missing, hints = [] }: NearMiss): string {
  const lines = missing.flatMap((selector) => {
    const hint = hints.find((one) => one.selector === selector)?.hint;
    return [`  ${printable(selector)}`, ...(hint === undefined ? [] : [`    ${printable(hint)}`])];
  });
  return [`not ${spiffeId} (entry ${entryId}): it lacks`, ...lines].join("\n");
}

function describeElsewhere({ entryId, spiffeId, parentId, message, hint }: Elsewhere): string {
  const why = message === undefined ? `its parent is ${parentId}` : printable(message);
  return [
    `not ${spiffeId} (entry ${entryId}), which matches: ${why}`,
    ...(hint === undefined ? [] : [`    ${printable(hint)}`]),
  ].join("\n");
}

export interface EntryAnswer {
  readonly entry: {
    readonly id: string;
    readonly spiffeId: string;
    readonly parentId: string;
    readonly selectors: readonly string[];
  };
  readonly handedOutBy: readonly AgentOnServer[];
  readonly agents: number;
  readonly obstacles: readonly { readonly reason: string; readonly message: string; readonly hint: string }[];
  readonly hints: readonly { readonly selector: string; readonly hint: string }[];
}

export function describeEntry({ entry, handedOutBy, agents, obstacles, hints }: EntryAnswer): string {
  const verdict =
    obstacles.length > 0
      ? "nobody gets this identity"
      : `workloads of ${agents === 1 ? "one agent" : `${agents} agents`} get it`;
  const sections = [
    `${verdict}: ${entry.spiffeId} (entry ${entry.id})\n  parent ${entry.parentId}`,
    section("for a workload that has", entry.selectors.map(printable)),
    ...obstacles.map(({ message, hint }) => `${printable(message)}\n    ${printable(hint)}`),
    ...hints.map(({ selector, hint }) => `no workload has ${printable(selector)}\n    ${printable(hint)}`),
    section(
      "agents",
      handedOutBy.flatMap((agent) => [agent.spiffeId, ...troubles(agent)]),
    ),
    handedOutBy.length < agents ? `and ${agents - handedOutBy.length} more` : "",
  ];
  return sections.filter((text) => text !== "").join("\n\n");
}

function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? "" : [title, ...lines.map((line) => `  ${line}`)].join("\n");
}

function age(thenMs: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - thenMs) / 1_000));
  return seconds < 120
    ? `${seconds} s`
    : seconds < 7_200
      ? `${Math.round(seconds / 60)} min`
      : `${Math.round(seconds / 3_600)} h`;
}
