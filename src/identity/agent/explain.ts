/** What a process gets from this agent, and what stands between it and an identity: for its operator, who may see every entry. */
import type { JsonObject } from "@bufbuild/protobuf";
import { EveryhopError } from "../../core/base/errors.ts";
import { type HintFacts, hintFor, mistakesOf } from "../../core/entries/hint.ts";
import { nearMisses } from "../../core/entries/near-miss.ts";
import { parseSelector, type Selector } from "../../core/entries/selector.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import { closePidfd, openPidfd } from "../../io/peer.ts";
import type { Attestation } from "../attest/workload/attest.ts";
import type { ProcessWatch } from "./attested.ts";
import type { IdentityCache } from "./cache.ts";

/** The agent at this moment. */
export interface AgentStatus {
  readonly spiffeId: SpiffeId;
  /** When its own SVID ends. */
  readonly expiresAtMs: number;
  readonly syncedAtMs: number | null;
  /** Why it is not in step with the server, or null. */
  readonly problem: string | null;
}

export interface ExplainOptions {
  readonly cache: IdentityCache;
  readonly processes: ProcessWatch;
  readonly agent: () => AgentStatus;
}

/** As if process `pid` had asked. Errors: as `attestWorkload`. */
export async function explainProcess(options: ExplainOptions, pid: number): Promise<JsonObject> {
  if (pid <= 0) {
    throw new EveryhopError("invalid-argument", "a process id must be positive");
  }
  const pidfd = openPidfd(pid);
  try {
    const attestation = await options.processes.attest({ pid, pidfd, caller: null }, () => true);
    const { process, outcomes } = attestation;
    return {
      pid,
      process: {
        uid: process.uid,
        gid: process.gid,
        program: process.executable?.path ?? null,
        programChangedAt: programChangedAt(attestation) ?? null,
        parentPid: process.parent?.pid ?? null,
      },
      attestors: outcomes.map(({ kind, error, selectors }) => ({
        kind,
        selectors: selectors.length,
        error: error?.message ?? null,
        ...(error?.hint === undefined ? {} : { hint: error.hint }),
      })),
      ...explain(options, attestation.selectors, factsOf(attestation)),
    };
  } finally {
    if (pidfd !== null) {
      closePidfd(pidfd);
    }
  }
}

/** Of a process that is not there, with these selectors. Errors: `invalid-argument`. */
export function explainSelectors(options: ExplainOptions, selectors: readonly string[]): JsonObject {
  const given = selectors.map(parseSelector);
  return {
    pid: null,
    mistakes: mistakesOf(given).map((one) => ({ ...one })),
    ...explain(options, given, { attestors: null }),
  };
}

/** What hints are made of, beside the selectors. */
export function factsOf(attestation: Attestation): HintFacts {
  const changedAt = programChangedAt(attestation);
  return {
    attestors: attestation.outcomes.map(({ kind, error }) => ({ kind, error: error?.message ?? null })),
    ...(changedAt === undefined ? {} : { programChangedAt: changedAt }),
  };
}

function programChangedAt({ process: { executable } }: Attestation): string | undefined {
  return executable === null ? undefined : time(Number(executable.file.changedNs / 1_000_000n));
}

function explain({ cache, agent }: ExplainOptions, selectors: readonly Selector[], facts: HintFacts): JsonObject {
  const { identities, missing } = cache.entitlement(selectors);
  const matching = cache.matching(selectors);
  const waiting = new Map(missing.map(({ entry, failure }) => [entry.id, failure]));
  const { spiffeId, expiresAtMs, syncedAtMs, problem } = agent();
  return {
    selectors: [...selectors],
    matched: matching.map(({ id }) => id),
    identities: matching.map((entry) => entry.spiffeId),
    verdict: identities.length > 0 ? "entitled" : matching.length > 0 ? "svid-pending" : "no-match",
    // Of those that match: whether the SVID is there, and if not why.
    svids: matching.map(({ id, spiffeId: identity }) => ({
      entryId: id,
      spiffeId: identity,
      ready: !waiting.has(id),
      failure: waiting.get(id) ?? null,
    })),
    nearMisses: nearMisses([...cache.entries.values()], selectors).map(({ entry, missing: lacks, instead }) => ({
      entryId: entry.id,
      spiffeId: entry.spiffeId,
      missing: [...lacks],
      instead: Object.fromEntries(Object.entries(instead).map(([selector, found]) => [selector, [...found]])),
      hints: lacks.map((selector) => ({ selector, hint: hintFor(selector, selectors, facts) })),
    })),
    agent: {
      spiffeId,
      syncedAt: syncedAtMs === null ? null : time(syncedAtMs),
      problem,
      entries: cache.entries.size,
      svidExpiresAt: time(expiresAtMs),
    },
  };
}

const time = (ms: number): string => new Date(ms).toISOString();
