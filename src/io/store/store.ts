/**
 * What the server keeps on disk, as a contract that every database obeys (`storeContract` in contract.ts tests it).
 * Times are milliseconds since the epoch. Errors of every operation: `storage-failed` where the disk or the database
 * refused, `unavailable` where it is away: then nobody knows whether a write was done, and it is safe to ask for it again. A
 * write's promise resolves after its change has been told to the watchers: who writes can read at once.
 */
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import type { Selector } from "../../core/entries/selector.ts";
import type { SpiffeId, TrustDomain } from "../../core/spiffe/id.ts";

export interface Store {
  readonly entries: EntryStore;
  readonly nodes: NodeStore;
  readonly joinTokens: JoinTokenStore;
  readonly issuance: IssuanceStore;
  readonly kills: KillStore;
  readonly bundles: BundleStore;
  readonly relationships: RelationshipStore;
  /** Everything that changes, as it was at one moment. */
  snapshot(): Promise<Snapshot>;
  /**
   * Calls `watcher` after each write, also those of other replicas, in the one order of all writes, each once; the function
   * returned ends it. What a change says a record is may be newer than the change; then that change follows.
   */
  watch(watcher: (event: StoreEvent) => void): () => void;
  /** Number of the last change that was told; it grows by one with each, over all replicas, and survives restarts. */
  readonly revision: number;
  close(): Promise<void>;
}

export interface Snapshot {
  readonly revision: number;
  readonly entries: readonly RegistrationEntry[];
  readonly nodes: readonly NodeRecord[];
  readonly kills: readonly KillRecord[];
  readonly bundles: readonly BundleRecord[];
  readonly relationships: readonly RelationshipRecord[];
}

/** A change; or, after a long time without the database, all at once. */
export type StoreEvent = Change | { readonly kind: "replaced"; readonly snapshot: Snapshot };

/** A change, with what the record is now; null where it is gone. */
export type Change = { readonly revision: number } & ChangedRecord;

export type ChangedRecord =
  | { readonly kind: "entry"; readonly id: string; readonly entry: RegistrationEntry | null }
  | { readonly kind: "node"; readonly id: SpiffeId; readonly node: NodeRecord | null }
  | { readonly kind: "kill"; readonly id: SpiffeId; readonly kill: KillRecord | null }
  | { readonly kind: "bundle"; readonly id: TrustDomain; readonly bundle: BundleRecord | null }
  | { readonly kind: "relationship"; readonly id: TrustDomain; readonly relationship: RelationshipRecord | null };

export interface EntryStore {
  all(): Promise<readonly RegistrationEntry[]>;
  /**
   * Adds `entry`, or answers with the similar one that is there (same SPIFFE ID, parent and selectors).
   * Errors: `already-exists` where the id is taken by another.
   */
  create(entry: RegistrationEntry): Promise<{ readonly created: boolean; readonly entry: RegistrationEntry }>;
  /**
   * Replaces an entry by what `change` makes of it, in one transaction. Errors: `not-found`; `already-exists` where it
   * would become similar to another; what `change` throws.
   */
  update(id: string, change: (current: RegistrationEntry) => RegistrationEntry): Promise<RegistrationEntry>;
  /** Whether it was there. */
  delete(id: string): Promise<boolean>;
}

/** A node that attested. */
export interface NodeRecord {
  readonly id: SpiffeId;
  readonly attestationType: string;
  /** Serial (lower-case hex) of the SVID it may call with; empty once banned. */
  readonly serial: string;
  readonly expiresAt: number;
  /** A renewed SVID that has not been used yet; its first use makes it the current one. */
  readonly next: { readonly serial: string; readonly expiresAt: number } | null;
  readonly banned: boolean;
  readonly canReattest: boolean;
  readonly selectors: readonly Selector[];
  /** As the agent gives it; empty where it does not. */
  readonly agentVersion: string;
}

export interface NodeStore {
  all(): Promise<readonly NodeRecord[]>;
  get(id: SpiffeId): Promise<NodeRecord | null>;
  /**
   * Writes what an attestation made. Errors: `permission-denied` where the node is banned, and with `first` where there is one
   * of that id. INVARIANT: of any number of callers with `first` one succeeds.
   */
  attested(node: NodeRecord, options?: { readonly first?: boolean }): Promise<void>;
  /** Changes a node in one transaction; null where it is not there. */
  update(id: SpiffeId, change: (current: NodeRecord) => NodeRecord): Promise<NodeRecord | null>;
  delete(id: SpiffeId): Promise<boolean>;
}

export interface JoinTokenStore {
  /** Only a digest is kept. Errors: `already-exists`. */
  create(token: string, expiresAt: number): Promise<void>;
  /**
   * Takes a token out, and says until when it was good; null where there is none. INVARIANT: of any number of claims one gets
   * it. The same claim gets it again: who lost the answer asks once more.
   */
  take(token: string, claim: string): Promise<{ readonly expiresAt: number } | null>;
  prune(before: number): Promise<number>;
}

/** What is about to be signed. */
export interface IssuanceIntent {
  readonly kind: "x509-svid" | "x509-ca" | "jwt-svid";
  /** Lower-case hex; unique among all that was ever intended. */
  readonly serial: string;
  readonly spiffeId: SpiffeId;
  /** The registration entry, or what else grants it: `agent:<spiffe id>`, `server`, `authority`, `mint`. */
  readonly entryId: string;
  /** Which key signs. */
  readonly authorityId: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly dnsNames: readonly string[];
  readonly audiences: readonly string[];
  /** SHA-256 of the bytes to be signed, lower-case hex. */
  readonly digest: string;
}

export interface IssuanceRecord extends IssuanceIntent {
  readonly intendedAtMs: number;
  /** The certificate (DER), or a token's SHA-256. Null: intended, and never handed out. */
  readonly issued: Uint8Array | null;
}

export interface IssuanceStore {
  /** All or none are written, on disk when it resolves. Errors: `already-exists` where a serial was intended before. */
  intend(intents: readonly IssuanceIntent[], nowMs: number): Promise<void>;
  /**
   * Notes what was signed, all or none. Errors: `not-found` for a serial never intended, `already-exists` for one signed
   * before.
   */
  record(signed: readonly { readonly serial: string; readonly issued: Uint8Array }[]): Promise<void>;
  get(serial: string): Promise<IssuanceRecord | null>;
  /** In order of intent, after the serial `after`. */
  list(options: { readonly liveAt?: number; readonly after?: number; readonly limit: number }): Promise<IssuancePage>;
  count(): Promise<{ readonly issued: number; readonly unfinished: number }>;
  /** Forgets what expired before. */
  prune(before: number): Promise<number>;
}

export interface IssuancePage {
  readonly records: readonly IssuanceRecord[];
  /** Where the next page begins; null at the end. */
  readonly next: number | null;
}

export interface KillRecord {
  readonly order: string;
  readonly spiffeId: SpiffeId;
  readonly since: number;
}

export interface KillStore {
  all(): Promise<readonly KillRecord[]>;
  /** Adds the order, or answers with the one in force. */
  add(kill: KillRecord): Promise<KillRecord>;
  remove(spiffeId: SpiffeId): Promise<KillRecord | null>;
}

/** A trust domain's bundle. */
export interface BundleRecord {
  readonly trustDomain: TrustDomain;
  readonly sequence: number;
  /** The bundle's document; identity/server reads and writes it. */
  readonly document: string;
}

export interface BundleStore {
  all(): Promise<readonly BundleRecord[]>;
  get(trustDomain: TrustDomain): Promise<BundleRecord | null>;
  /** Makes or changes one in a transaction; what `change` gives back unchanged is not written. */
  put(trustDomain: TrustDomain, change: (current: BundleRecord | null) => BundleRecord): Promise<BundleRecord>;
  delete(trustDomain: TrustDomain): Promise<boolean>;
}

/** From which endpoint a trust domain's bundle is taken. */
export interface RelationshipRecord {
  readonly trustDomain: TrustDomain;
  readonly url: string;
  /** Who serves it, by the profile `https_spiffe`; null: `https_web`. */
  readonly endpointSpiffeId: SpiffeId | null;
}

export interface RelationshipStore {
  all(): Promise<readonly RelationshipRecord[]>;
  /** Makes or changes one in a transaction. Errors: what `change` throws. */
  put(
    trustDomain: TrustDomain,
    change: (current: RelationshipRecord | null) => RelationshipRecord,
  ): Promise<RelationshipRecord>;
  /** Whether it was there. */
  delete(trustDomain: TrustDomain): Promise<boolean>;
}
