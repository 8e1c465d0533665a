import { randomUUID } from "node:crypto";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { type EntryDraft, type RegistrationEntry, validateEntry } from "../../core/entries/entry.ts";
import { byId } from "../../core/entries/entry-index.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";
import type {
  BundleRecord,
  Change,
  IssuanceRecord,
  KillRecord,
  NodeRecord,
  RelationshipRecord,
  Store,
} from "../../io/store/store.ts";
import { Records } from "./records.ts";

export interface RegistryOptions {
  readonly store: Store;
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
}

/** An identity of the registry, with the newest SVID issued for it that has not expired, if there is one. */
export interface KnownIdentity {
  readonly spiffeId: SpiffeId;
  readonly svid: { readonly serial: string; readonly notBefore: number; readonly notAfter: number } | null;
}

/** After an SVID has expired. */
export const JOURNAL_KEPT_MS = 90 * 86_400_000;
const TOKEN_GRACE_MS = 3_600_000;
/** A page of the journal that is read at once. */
const JOURNAL_PAGE = 5_000;

/**
 * Who may have which identity, in memory, as the store's changes tell it: every replica hears of a write in the same way,
 * also the one that wrote. Reads cost no query.
 */
export class Registry {
  readonly trustDomain: TrustDomain;
  /** Identities that are cut off, oldest order first. */
  readonly kills: Cell<readonly KillRecord[]>;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #records: Records;

  private constructor({ store, trustDomain, clock }: RegistryOptions, records: Records) {
    this.#store = store;
    this.#clock = clock;
    this.trustDomain = trustDomain;
    this.#records = records;
    this.kills = new Cell(this.#killsInOrder());
    records.watch(({ kind }) => {
      if (kind === "kill") {
        this.kills.set(this.#killsInOrder());
      }
    });
  }

  static async open(options: RegistryOptions): Promise<Registry> {
    return new Registry(options, await Records.open(options.store, options.trustDomain));
  }

  /** Number of the last change that is in here; it grows by one with each, over all replicas. */
  get revision(): number {
    return this.#records.revision;
  }

  /** Calls `watcher` after each change, also of other replicas, in the order of the writes; the function returned ends it. */
  watch(watcher: (change: Change) => void): () => void {
    return this.#records.watch(watcher);
  }

  /** Calls `watcher` with the agents whose entries a change has touched. */
  watchAgents(watcher: (agents: ReadonlySet<SpiffeId>, change: Change) => void): () => void {
    return this.#records.watch((change, before) => watcher(this.#records.touched(change, before), change));
  }

  #killsInOrder(): readonly KillRecord[] {
    return [...this.#records.kills.values()].sort((a, b) => a.since - b.since);
  }

  /** In order of id. */
  entries(): readonly RegistrationEntry[] {
    return this.#records.entries.sorted();
  }

  get counts(): { readonly entries: number; readonly nodes: number } {
    return { entries: this.#records.entries.size, nodes: this.#records.nodes.size };
  }

  entry(id: string): RegistrationEntry | null {
    return this.#records.entries.get(id) ?? null;
  }

  node(id: SpiffeId): NodeRecord | null {
    return this.#records.nodes.get(id) ?? null;
  }

  bundle(trustDomain: TrustDomain): BundleRecord | null {
    return this.#records.bundles.get(trustDomain) ?? null;
  }

  /** In order of trust domain. */
  relationships(): readonly RelationshipRecord[] {
    return [...this.#records.relationships.values()].sort((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1));
  }

  bundles(): readonly BundleRecord[] {
    return [...this.#records.bundles.values()];
  }

  /** In order of id. */
  nodes(): readonly NodeRecord[] {
    return [...this.#records.nodes.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /**
   * Adds an entry; a similar one that is there is answered instead (`created` false).
   * Errors: `invalid-argument` with the field; `failed-precondition` for an unknown federated trust domain.
   */
  async createEntry(draft: EntryDraft): Promise<{ readonly created: boolean; readonly entry: RegistrationEntry }> {
    const now = this.#wholeSecond();
    const checked = validateEntry(draft, { trustDomain: this.trustDomain, now, newId: randomUUID() });
    if (!checked.ok) {
      throw entryFaults(checked.faults);
    }
    this.#checkFederation(checked.entry);
    return this.#store.entries.create(checked.entry);
  }

  /** Changes an entry; `change` makes the whole new draft of the current one. Errors: `not-found`; as `createEntry`. */
  async updateEntry(id: string, change: (current: RegistrationEntry) => EntryDraft): Promise<RegistrationEntry> {
    const before = this.entry(id);
    if (before !== null) {
      this.#checkFederation({ federatesWith: (change(before).federatesWith ?? []) as TrustDomain[] });
    }
    return this.#store.entries.update(id, (current) => {
      const context = { trustDomain: this.trustDomain, now: current.createdAtMs, newId: id };
      const checked = validateEntry({ ...change(current), id }, context);
      if (!checked.ok) {
        throw entryFaults(checked.faults);
      }
      return { ...checked.entry, revision: current.revision + 1 };
    });
  }

  /** Whether it was there. */
  deleteEntry(id: string): Promise<boolean> {
    return this.#store.entries.delete(id);
  }

  #checkFederation({ federatesWith }: Pick<RegistrationEntry, "federatesWith">): void {
    for (const trustDomain of federatesWith) {
      if (trustDomain !== this.trustDomain && !this.#records.bundles.has(trustDomain)) {
        throw new EveryhopError("failed-precondition", `there is no bundle for the trust domain \`${trustDomain}\``, {
          hint: `set it first: \`everyhop bundle set --id spiffe://${trustDomain} --path FILE\``,
        });
      }
    }
  }

  /** What an agent may hand out now, in order of id: nothing expired, nothing killed. */
  authorizedEntries(agent: SpiffeId): readonly RegistrationEntry[] {
    if (this.isKilled(agent)) {
      return [];
    }
    const selectors = this.node(agent)?.selectors ?? [];
    return this.#records.entries.authorized(agent, selectors).filter((entry) => this.#isUsable(entry));
  }

  /** One of them, or null: without looking at the others. */
  authorizedEntry(agent: SpiffeId, id: string): RegistrationEntry | null {
    const entry = this.entry(id);
    if (entry === null || this.isKilled(agent) || !this.#isUsable(entry)) {
      return null;
    }
    return this.#records.entries.isAuthorized(entry, agent, this.node(agent)?.selectors ?? []) ? entry : null;
  }

  /** Whether an entry that says so gives `id` the rights of an administrator, or of a downstream server. */
  isGranted(id: SpiffeId, right: "admin" | "downstream"): boolean {
    return this.granting(id, right) !== null;
  }

  /** The entry that says so. */
  granting(id: SpiffeId, right: "admin" | "downstream"): RegistrationEntry | null {
    const found = [...this.#records.entries.ofSpiffeId(id)].filter((entry) => entry[right] && this.#isUsable(entry));
    return found.sort(byId)[0] ?? null;
  }

  #isUsable(entry: RegistrationEntry): boolean {
    const expired = entry.expiresAtMs !== null && entry.expiresAtMs <= this.#clock.now();
    return !expired && !this.#records.kills.has(entry.spiffeId);
  }

  isRegistered(id: SpiffeId): boolean {
    for (const _ of this.#records.entries.ofSpiffeId(id)) {
      return true;
    }
    return false;
  }

  isKilled(id: SpiffeId): boolean {
    return this.#records.kills.has(id);
  }

  /**
   * Cuts `id` off: once this resolves it is on disk, no SVID is signed for it, and every watcher was told. Killing again
   * gives the order that is in force.
   */
  kill(id: SpiffeId): Promise<KillRecord> {
    return this.#store.kills.add({ order: randomUUID(), spiffeId: id, since: this.#clock.now() });
  }

  /** Undoes a kill; the order that was in force, or null where there was none. */
  restore(id: SpiffeId): Promise<KillRecord | null> {
    return this.#store.kills.remove(id);
  }

  /** Throws where `id` may have no SVID. INVARIANT: asked last before each signature, with nothing awaited in between. */
  refuseKilled(id: SpiffeId): void {
    if (this.isKilled(id)) {
      throw new EveryhopError("permission-denied", `\`${id}\` is cut off`, { hint: "`everyhop restore` undoes it" });
    }
  }

  /** Every identity that has an entry, or an X.509-SVID that has not expired. */
  async known(): Promise<readonly KnownIdentity[]> {
    const newest = new Map<SpiffeId, IssuanceRecord | null>(this.entries().map(({ spiffeId }) => [spiffeId, null]));
    for await (const record of this.liveSvids()) {
      const other = newest.get(record.spiffeId);
      if (other === undefined || other === null || other.notAfterMs <= record.notAfterMs) {
        newest.set(record.spiffeId, record);
      }
    }
    return [...newest].map(([spiffeId, record]) => ({
      spiffeId,
      svid:
        record === null ? null : { serial: record.serial, notBefore: record.notBeforeMs, notAfter: record.notAfterMs },
    }));
  }

  /** X.509-SVIDs that were issued and have not expired, in order of issue. */
  async *liveSvids(): AsyncGenerator<IssuanceRecord> {
    const liveAt = this.#clock.now();
    let after: number | null = 0;
    while (after !== null) {
      const page: { records: readonly IssuanceRecord[]; next: number | null } = await this.#store.issuance.list({
        liveAt,
        after,
        limit: JOURNAL_PAGE,
      });
      yield* page.records.filter(({ kind }) => kind === "x509-svid");
      after = page.next;
    }
  }

  /** Takes out what expired; what was issued stays in the journal for a while after. */
  async prune(): Promise<void> {
    const now = this.#clock.now();
    const expired = [...this.#records.entries.values()].filter(
      ({ expiresAtMs }) => expiresAtMs !== null && expiresAtMs <= now,
    );
    for (const { id } of expired) {
      await this.deleteEntry(id);
    }
    // An expired token is kept for a while: who comes with it is told that it expired, not that there was none.
    await this.#store.joinTokens.prune(now - TOKEN_GRACE_MS);
    await this.#store.issuance.prune(now - JOURNAL_KEPT_MS);
  }

  #wholeSecond(): number {
    return Math.floor(this.#clock.now() / 1_000) * 1_000;
  }
}

function entryFaults(faults: readonly { readonly field: string; readonly message: string }[]): EveryhopError {
  return new EveryhopError("invalid-argument", faults.map(({ field, message }) => `${field} ${message}`).join("; "));
}
