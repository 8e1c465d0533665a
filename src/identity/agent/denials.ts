/**
 * "No identity issued", with its reasons: all of them in the agent's log, for its operator; to the workload what it may know of
 * itself. INVARIANT: nothing of an entry that does not match reaches a workload (docs/decisions/0013).
 */
import type { Clock } from "../../core/base/clock.ts";
import { hintFor } from "../../core/entries/hint.ts";
import { nearMisses } from "../../core/entries/near-miss.ts";
import { withoutSecrets } from "../../core/entries/selector-kinds.ts";
import type { Log } from "../../io/log.ts";
import type { Attestation } from "../attest/workload/attest.ts";
import { type CallEnd, noIdentityEnd } from "./answer.ts";
import type { IdentityCache } from "./cache.ts";
import { type AgentStatus, factsOf } from "./explain.ts";

export interface DenialsOptions {
  readonly cache: IdentityCache;
  readonly agent: () => AgentStatus;
  readonly clock: Clock;
  readonly log: Log;
}

/** Looking for near misses goes through every entry: once in this time, whoever asks. */
const EXPLAIN_EVERY_MS = 1_000;
/** A workload asks again and again: a line for it once in this time. */
const REPEAT_MS = 60_000;
const MAX_REMEMBERED = 1_000;
const MAX_LOGGED = 64;

export class Denials {
  readonly #options: DenialsOptions;
  readonly #toldAt = new Map<string, number>();
  #explainAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: DenialsOptions) {
    this.#options = options;
  }

  /** How the call of a workload ends that no entry matches. */
  noIdentity(attestation: Attestation): CallEnd {
    this.#tell(attestation);
    const { agent } = this.#options;
    const { process, selectors, outcomes } = attestation;
    const { spiffeId, syncedAtMs } = agent();
    return noIdentityEnd({
      pid: String(process.pid),
      agent: spiffeId,
      syncedAt: syncedAtMs === null ? "never" : new Date(syncedAtMs).toISOString(),
      failedAttestors: outcomes
        .filter(({ error }) => error !== null)
        .map(({ kind }) => kind)
        .join(","),
      // The user, groups and program of the process: what it can see of itself.
      selectors: selectors
        .filter((selector) => /^unix:(?!parent:|process:)/.test(selector))
        .join(" ")
        .slice(0, 1_000),
    });
  }

  #tell(attestation: Attestation): void {
    const { cache, agent, clock, log } = this.#options;
    const { process, selectors, outcomes } = attestation;
    const key = `${process.pid} ${process.startTime}`;
    const now = clock.now();
    if (now - (this.#toldAt.get(key) ?? Number.NEGATIVE_INFINITY) < REPEAT_MS) {
      return;
    }
    this.#remember(key, now);
    const { syncedAtMs, problem } = agent();
    const fields = {
      pid: process.pid,
      uid: process.uid,
      program: process.executable?.path ?? null,
      selectors: selectors.slice(0, MAX_LOGGED).map(withoutSecrets),
      failedAttestors: outcomes.flatMap(({ kind, error }) => (error === null ? [] : [`${kind}: ${error.message}`])),
      entries: cache.entries.size,
      syncedAt: syncedAtMs === null ? null : new Date(syncedAtMs).toISOString(),
      ...(problem === null ? {} : { problem }),
      hint: `\`everyhop entry explain --pid ${process.pid}\` says more`,
    };
    log.warn("no identity for a workload: no entry matches it", { ...fields, ...this.#nearest(attestation, now) });
  }

  #nearest(attestation: Attestation, now: number): object {
    if (now < this.#explainAtMs) {
      return {};
    }
    this.#explainAtMs = now + EXPLAIN_EVERY_MS;
    const { selectors } = attestation;
    const [nearest] = nearMisses([...this.#options.cache.entries.values()], selectors, 1);
    if (nearest === undefined) {
      return {};
    }
    const facts = factsOf(attestation);
    const missing = nearest.missing.map(
      (selector) => `${withoutSecrets(selector)}: ${hintFor(selector, selectors, facts)}`,
    );
    return { nearest: { entryId: nearest.entry.id, spiffeId: nearest.entry.spiffeId, missing } };
  }

  #remember(key: string, now: number): void {
    this.#toldAt.set(key, now);
    if (this.#toldAt.size > MAX_REMEMBERED) {
      this.#toldAt.delete(this.#toldAt.keys().next().value as string);
    }
  }
}
