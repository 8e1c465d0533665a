/** Processes that identities are handed out for, watched until nobody asks for them any more. */
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Log } from "../../io/log.ts";
import { exitedPidfds } from "../../io/peer.ts";
import { type Attestation, attestWorkload, type WorkloadAttestor, withEarlier } from "../attest/workload/attest.ts";
import { changeBetween, observe, type ProcessReference } from "../attest/workload/observe.ts";

/** How soon the end of a process is seen. One system call looks at all of them. */
const EXIT_MS = 100;
/** Each is looked at every so many of these rounds for what no descriptor tells: another program, user or parent. */
const CHANGE_ROUNDS = 10;

export interface AttestorOptions {
  readonly attestors: readonly WorkloadAttestor[];
  readonly needed: (prefix: string) => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

export interface AttestorTally {
  readonly answered: number;
  readonly failed: number;
}

/** Attests processes, and watches those that streams are open for. */
export class ProcessWatch {
  readonly #options: AttestorOptions;
  readonly #watched = new Set<AttestedProcess>();
  readonly #tally = new Map<string, AttestorTally>();
  #round = 0;
  #cancelTick: (() => void) | null = null;
  #closed = false;

  constructor(options: AttestorOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#watched.size;
  }

  /** Attests once. Errors: as `attestWorkload`. */
  async attest(reference: ProcessReference, needed = this.#options.needed): Promise<Attestation> {
    const { attestors, log } = this.#options;
    return attestWorkload(reference, attestors, needed, log, (kind, good) => {
      const { answered, failed } = this.#tally.get(kind) ?? { answered: 0, failed: 0 };
      this.#tally.set(kind, { answered: answered + Number(good), failed: failed + Number(!good) });
    });
  }

  /** What each attestor has done so far, by its kind. */
  get tally(): ReadonlyMap<string, AttestorTally> {
    return this.#tally;
  }

  /** Attests, and watches until `close`. The reference's pidfd stays the caller's. */
  async watch(reference: ProcessReference): Promise<AttestedProcess> {
    const process = new AttestedProcess(reference, this, this.#options.needed);
    await process.refresh();
    if (this.#closed) {
      throw new EveryhopError("unavailable", "the agent is stopping");
    }
    this.#watched.add(process);
    this.#schedule();
    return process;
  }

  forget(process: AttestedProcess): void {
    this.#watched.delete(process);
  }

  close(): void {
    this.#closed = true;
    this.#cancelTick?.();
    this.#watched.clear();
  }

  #schedule(): void {
    if (this.#cancelTick === null && this.#watched.size > 0) {
      this.#cancelTick = this.#options.clock.after(EXIT_MS, () => {
        this.#cancelTick = null;
        this.#tick();
        this.#schedule();
      });
    }
  }

  #tick(): void {
    const withPidfd = [...this.#watched].filter(({ reference }) => reference.pidfd !== null);
    const exited = exitedPidfds(withPidfd.map(({ reference }) => reference.pidfd as number));
    for (const [index, process] of withPidfd.entries()) {
      if (exited[index] === true) {
        process.suspect();
      }
    }
    this.#round = (this.#round + 1) % CHANGE_ROUNDS;
    for (const [index, process] of [...this.#watched].entries()) {
      if (index % CHANGE_ROUNDS === this.#round) {
        process.look();
      }
    }
  }
}

/** One process with what it was attested as. */
export class AttestedProcess {
  readonly reference: ProcessReference;
  readonly #watch: ProcessWatch;
  readonly #needed: (prefix: string) => boolean;
  readonly #suspicions = new Set<() => void>();
  /** What `needed` said when it was attested: where it says more now, there is more to find out. */
  #answers = new Map<string, boolean>();
  #attestation: Attestation | null = null;
  #suspect = false;

  constructor(reference: ProcessReference, watch: ProcessWatch, needed: (prefix: string) => boolean) {
    this.reference = reference;
    this.#watch = watch;
    this.#needed = needed;
  }

  get attestation(): Attestation {
    if (this.#attestation === null) {
      throw new EveryhopError("internal", "a process that was not attested");
    }
    return this.#attestation;
  }

  /** Whether `attestation` may no longer be what `refresh` would say. */
  get stale(): boolean {
    return this.#suspect || [...this.#answers].some(([prefix, answer]) => this.#needed(prefix) !== answer);
  }

  /**
   * Attests anew. What an attestor said of this unchanged process stays true while that attestor cannot be asked. Errors: as
   * `attestWorkload`.
   */
  async refresh(): Promise<Attestation> {
    const before = this.#attestation;
    this.#suspect = false;
    const answers = new Map<string, boolean>();
    const attesting = this.#watch.attest(this.reference, (prefix) => {
      const answer = this.#needed(prefix);
      answers.set(prefix, answer);
      return answer;
    });
    try {
      const found = await attesting;
      this.#attestation = before === null ? found : withEarlier(found, before);
    } catch (error) {
      const away = error instanceof EveryhopError && error.code === "unavailable";
      if (!away || before === null || !this.#unchanged()) {
        throw error;
      }
      return before;
    }
    this.#answers = answers;
    return this.#attestation;
  }

  /** What it is at this moment: confirmed where nothing changed, else attested anew. Errors: as `attestWorkload`. */
  async current(): Promise<Attestation> {
    return this.stale || !this.#unchanged() ? this.refresh() : this.attestation;
  }

  /** Looks whether it changed, and says so to those who asked. */
  look(): void {
    if (!this.#unchanged()) {
      this.suspect();
    }
  }

  #unchanged(): boolean {
    const { pidfd } = this.reference;
    try {
      const now = observe(this.reference);
      return (
        changeBetween(this.attestation.process, now) === null && (pidfd === null || exitedPidfds([pidfd])[0] === false)
      );
    } catch {
      return false;
    }
  }

  suspect(): void {
    this.#suspect = true;
    for (const tell of [...this.#suspicions]) {
      tell();
    }
  }

  /** Calls `tell` whenever the process may be gone or another; the function returned ends that. */
  onSuspicion(tell: () => void): () => void {
    this.#suspicions.add(tell);
    return () => this.#suspicions.delete(tell);
  }

  close(): void {
    this.#watch.forget(this);
  }
}
