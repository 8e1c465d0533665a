/** What the agent can hand out, in memory: entries, one SVID for each, bundles. Workload API and broker share it. */
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { EntryIndex } from "../../core/entries/entry-index.ts";
import type { Selector } from "../../core/entries/selector.ts";
import { type Bundle, emptyBundle } from "../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import { isOverdue, type X509Svid } from "../../core/spiffe/svid.ts";

export interface Identity {
  readonly entry: RegistrationEntry;
  readonly svid: X509Svid;
}

/** What a workload has right now. */
export interface Entitlement {
  /** Oldest entry first: the first is the default identity, and stays it. */
  readonly identities: readonly Identity[];
  /** Entries that match and have no SVID yet, and why where signing failed. */
  readonly missing: readonly { readonly entry: RegistrationEntry; readonly failure: string | null }[];
  /** Own trust domain first, then those its entries federate with. */
  readonly bundles: readonly HeldBundle[];
}

export interface HeldBundle {
  readonly bundle: Bundle;
  /** Differs whenever the bundle differs. */
  readonly version: number;
}

export interface HeldSvid {
  readonly svid: X509Svid;
  readonly revision: number;
  /** When to replace it. */
  readonly renewAtMs: number;
}

/** All that is held, to keep it and to take it up again. */
export interface CacheContents {
  readonly entries: readonly RegistrationEntry[];
  readonly svids: ReadonlyMap<string, HeldSvid>;
  readonly bundles: readonly Bundle[];
}

/** News from the server. */
export type CacheChange =
  | { readonly kind: "entries"; readonly entries: readonly RegistrationEntry[] }
  | { readonly kind: "bundle"; readonly bundle: Bundle }
  | { readonly kind: "no-bundle"; readonly trustDomain: TrustDomain };

/** SVIDs are made ahead for so many entries; the rest get theirs when a workload asks. */
const PREFETCH = 1_000;
/** An entry beyond those keeps its SVID renewed for so long after it was last asked for. */
const WANTED_MS = 10 * 60_000;

export class IdentityCache {
  /** Grows with every change that a workload could see. */
  readonly changed = new Cell(0);
  readonly trustDomain: TrustDomain;
  readonly #clock: Clock;
  #index = new EntryIndex([]);
  #entries: ReadonlyMap<string, RegistrationEntry> = new Map();
  #prefixes: ReadonlySet<string> = new Set();
  readonly #svids = new Map<string, HeldSvid>();
  readonly #failures = new Map<string, string>();
  readonly #wantedAt = new Map<string, number>();
  readonly #bundles = new Map<TrustDomain, HeldBundle>();
  #onWanted: () => void = () => {};

  constructor(trustDomain: TrustDomain, clock: Clock) {
    this.trustDomain = trustDomain;
    this.#clock = clock;
    this.#bundles.set(trustDomain, { bundle: emptyBundle(trustDomain), version: 0 });
  }

  get entries(): ReadonlyMap<string, RegistrationEntry> {
    return this.#entries;
  }

  get svidCount(): number {
    return this.#svids.size;
  }

  /** Those that are kept renewed, and of which less than a quarter is left all the same. */
  get overdueCount(): number {
    const now = this.#clock.now();
    return [...this.#wanted(now)].filter(({ id }) => {
      const held = this.#svids.get(id);
      return held !== undefined && isOverdue(held.svid.notBefore, held.svid.notAfter, now);
    }).length;
  }

  get failureCount(): number {
    return this.#failures.size;
  }

  get bundle(): Bundle {
    return (this.#bundles.get(this.trustDomain) as HeldBundle).bundle;
  }

  /** Every bundle, the own trust domain's first. */
  get heldBundles(): readonly HeldBundle[] {
    return [...this.#bundles.values()];
  }

  /** Trust domains other than the own of which a bundle is held. */
  get federated(): readonly TrustDomain[] {
    return [...this.#bundles.keys()].filter((name) => name !== this.trustDomain);
  }

  bundleOf(trustDomain: TrustDomain): Bundle | undefined {
    return this.#bundles.get(trustDomain)?.bundle;
  }

  /** Calls `wanted` when a workload asks for an SVID that was not made ahead. */
  onWanted(wanted: () => void): void {
    this.#onWanted = wanted;
  }

  /** What is held; with `change`, what would be after it. */
  contents(change?: CacheChange): CacheContents {
    const entries = change?.kind === "entries" ? change.entries : [...this.#entries.values()];
    const ids = new Map(entries.map(({ id, spiffeId }) => [id, spiffeId]));
    const gone = change?.kind === "no-bundle" ? change.trustDomain : null;
    const bundles = [...this.#bundles.values()]
      .map(({ bundle }) => bundle)
      .map((held) =>
        change?.kind === "bundle" && change.bundle.trustDomain === held.trustDomain ? change.bundle : held,
      )
      .filter(({ trustDomain }) => trustDomain !== gone);
    return { entries, svids: new Map([...this.#svids].filter(([id, { svid }]) => ids.get(id) === svid.id)), bundles };
  }

  apply(change: CacheChange): void {
    if (change.kind === "entries") {
      this.setEntries(change.entries);
    } else if (change.kind === "bundle") {
      this.setBundle(change.bundle);
    } else {
      this.removeBundle(change.trustDomain);
    }
  }

  /** Whether `change` takes anything away: an entry or what it was, or trust. */
  withdraws(change: CacheChange): boolean {
    if (change.kind === "entries") {
      const after = new Map(change.entries.map((entry) => [entry.id, entry]));
      return [...this.#entries].some(([id, old]) => {
        const entry = after.get(id);
        return entry === undefined || !sameEntry(old, entry);
      });
    }
    const held = this.bundleOf(change.kind === "bundle" ? change.bundle.trustDomain : change.trustDomain);
    return held !== undefined && (change.kind === "no-bundle" || !coversBundle(change.bundle, held));
  }

  /** Takes up what an earlier run held, as far as it is still good. */
  restore({ entries, svids, bundles }: CacheContents): void {
    const now = this.#clock.now();
    this.setEntries(entries);
    for (const bundle of bundles) {
      this.setBundle(bundle);
    }
    this.setSvids(new Map([...svids].filter(([, { svid }]) => svid.notAfter > now)), new Map());
  }

  /** Replaces all entries; SVIDs of those that are gone, or name another identity now, are dropped at once. */
  setEntries(entries: readonly RegistrationEntry[]): void {
    const before = this.#entries;
    const after = new Map(entries.map((entry) => [entry.id, entry]));
    for (const [id, old] of before) {
      if (after.get(id)?.spiffeId !== old.spiffeId) {
        this.#svids.delete(id);
        this.#failures.delete(id);
        this.#wantedAt.delete(id);
      }
    }
    const same = before.size === after.size && entries.every((entry) => sameEntry(before.get(entry.id), entry));
    if (!same) {
      this.#entries = after;
      this.#index = new EntryIndex(entries.filter((entry) => !entry.storeSvid));
      this.#prefixes = prefixesOf(entries);
      this.#tell();
    }
  }

  setBundle(bundle: Bundle): void {
    const held = this.#bundles.get(bundle.trustDomain);
    if (held === undefined || !sameBundle(held.bundle, bundle)) {
      this.#bundles.set(bundle.trustDomain, { bundle, version: (held?.version ?? 0) + 1 });
      this.#tell();
    }
  }

  removeBundle(trustDomain: TrustDomain): void {
    if (trustDomain !== this.trustDomain && this.#bundles.delete(trustDomain)) {
      this.#tell();
    }
  }

  /** Takes the outcome of a round of signing. */
  setSvids(signed: ReadonlyMap<string, HeldSvid>, failed: ReadonlyMap<string, string>): void {
    for (const [id, held] of signed) {
      // RACE: the entry may have gone, or come to name another identity, while the server signed.
      if (this.#entries.get(id)?.spiffeId === held.svid.id) {
        this.#svids.set(id, held);
        this.#failures.delete(id);
      }
    }
    for (const [id, failure] of failed) {
      this.#failures.set(id, failure);
    }
    if (signed.size + failed.size > 0) {
      this.#tell();
    }
  }

  /** Says of entries that wait for their first SVID why they do not get it: who waits for one is told, and may come again. */
  failMissing(failure: string): void {
    const failed = new Map(
      [...this.#wanted(this.#clock.now())]
        .filter(({ id }) => !this.#svids.has(id) && this.#failures.get(id) !== failure)
        .map(({ id }) => [id, failure] as const),
    );
    this.setSvids(new Map(), failed);
  }

  /** Has every SVID replaced of which `which` holds; they stay in use until then. */
  renewAll(which: (svid: X509Svid) => boolean): void {
    for (const [id, held] of this.#svids) {
      if (which(held.svid)) {
        this.#svids.set(id, { ...held, renewAtMs: 0 });
      }
    }
  }

  /** Entries that need an SVID now. */
  due(): readonly RegistrationEntry[] {
    const now = this.#clock.now();
    return [...this.#wanted(now)].filter((entry) => {
      const held = this.#svids.get(entry.id);
      return held === undefined || held.revision !== entry.revision || held.renewAtMs <= now;
    });
  }

  /**
   * When the next SVID is to be replaced or expires; null where there is none. RACE: one that fell due while others were
   * signed lies in the past already, and counts: passed over, it would wait for another's turn, past its end.
   */
  nextAt(): number | null {
    let next: number | null = null;
    for (const entry of this.#wanted(this.#clock.now())) {
      const held = this.#svids.get(entry.id);
      if (held !== undefined) {
        next = Math.min(next ?? Number.POSITIVE_INFINITY, held.renewAtMs, held.svid.notAfter);
      }
    }
    return next;
  }

  /** Drops what has expired, so that who holds it is told. */
  dropExpired(): void {
    const now = this.#clock.now();
    for (const [id, { svid }] of this.#svids) {
      if (svid.notAfter <= now) {
        this.#svids.delete(id);
        this.#failures.set(id, "its SVID expired and could not be renewed");
        this.#tell();
      }
    }
  }

  /** Whether any entry has a selector that begins with `prefix` (a whole number of its parts, colon included). */
  readonly needed = (prefix: string): boolean => this.#prefixes.has(prefix);

  /** HOT: per call and per change, for each workload. */
  entitlement(selectors: readonly Selector[]): Entitlement {
    const now = this.#clock.now();
    const identities: Identity[] = [];
    const missing: { entry: RegistrationEntry; failure: string | null }[] = [];
    for (const entry of this.matching(selectors)) {
      const held = this.#svids.get(entry.id);
      if (held !== undefined && held.svid.notAfter > now) {
        identities.push({ entry, svid: held.svid });
      } else {
        missing.push({ entry, failure: this.#failures.get(entry.id) ?? null });
      }
      this.#want(entry, held === undefined, now);
    }
    return { identities: withDistinctHints(identities), missing, bundles: this.#bundlesFor(identities) };
  }

  /** Entries that match, oldest first. */
  matching(selectors: readonly Selector[]): readonly RegistrationEntry[] {
    return [...this.#index.matching(selectors)].sort(
      (left, right) => left.createdAtMs - right.createdAtMs || (left.id < right.id ? -1 : 1),
    );
  }

  /** Those of them that can be told apart: what a workload asks for without an SVID at hand. */
  named(selectors: readonly Selector[]): readonly RegistrationEntry[] {
    return withDistinctHints(this.matching(selectors).map((entry) => ({ entry }))).map(({ entry }) => entry);
  }

  #bundlesFor(identities: readonly Identity[]): HeldBundle[] {
    const names = new Set([this.trustDomain, ...identities.flatMap(({ entry }) => entry.federatesWith)]);
    return [...names].flatMap((name) => this.#bundles.get(name) ?? []);
  }

  #want(entry: RegistrationEntry, absent: boolean, now: number): void {
    if (this.#entries.size > PREFETCH) {
      const known = this.#wantedAt.has(entry.id);
      this.#wantedAt.set(entry.id, now);
      if (absent && !known) {
        this.#onWanted();
      }
    }
  }

  *#wanted(now: number): Generator<RegistrationEntry> {
    if (this.#entries.size <= PREFETCH) {
      yield* this.#entries.values();
      return;
    }
    for (const [id, at] of this.#wantedAt) {
      const entry = this.#entries.get(id);
      if (entry === undefined || at < now - WANTED_MS) {
        this.#wantedAt.delete(id);
        this.#svids.delete(id);
      } else {
        yield entry;
      }
    }
  }

  #tell(): void {
    this.changed.set(this.changed.value + 1);
  }
}

/** SPEC: Workload API §5.2.1: a hint comes once; the oldest entry has it, as in SPIRE. */
function withDistinctHints<T extends Pick<Identity, "entry">>(identities: readonly T[]): readonly T[] {
  const hints = new Set<string>();
  return identities.filter(({ entry: { hint } }) => {
    const first = hint === "" || !hints.has(hint);
    hints.add(hint);
    return first;
  });
}

function prefixesOf(entries: readonly RegistrationEntry[]): ReadonlySet<string> {
  const prefixes = new Set<string>();
  for (const entry of entries) {
    for (const selector of entry.selectors) {
      for (let colon = selector.indexOf(":"); colon >= 0; colon = selector.indexOf(":", colon + 1)) {
        prefixes.add(selector.slice(0, colon + 1));
      }
    }
  }
  return prefixes;
}

function sameEntry(a: RegistrationEntry | undefined, b: RegistrationEntry): boolean {
  return a !== undefined && a.revision === b.revision && JSON.stringify(a) === JSON.stringify(b);
}

/** Whether all that `inner` trusts is trusted by `outer` too. */
function coversBundle(outer: Bundle, inner: Bundle): boolean {
  const x509 = new Set(outer.x509Authorities.map(base64));
  const jwt = new Set(outer.jwtAuthorities.map(({ keyId, tainted }) => `${tainted} ${keyId}`));
  return (
    inner.x509Authorities.every((der) => x509.has(base64(der))) &&
    inner.jwtAuthorities.every(({ keyId, tainted }) => jwt.has(`${tainted} ${keyId}`)) &&
    outer.taintedX509KeyIds.every((id) => inner.taintedX509KeyIds.includes(id))
  );
}

function sameBundle(a: Bundle, b: Bundle): boolean {
  const text = (bundle: Bundle) =>
    JSON.stringify([
      bundle.x509Authorities.map(base64),
      bundle.taintedX509KeyIds,
      bundle.jwtAuthorities.map((authority) => ({ ...authority, publicKey: base64(authority.publicKey) })),
    ]);
  return text(a) === text(b);
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
