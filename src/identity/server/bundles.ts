import { Cell } from "../../core/base/cell.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { type Bundle, emptyBundle } from "../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import type { BundleRecord, Store } from "../../io/store/store.ts";
import { bundleFromDocument, bundleToDocument } from "./bundle-wire.ts";
import {
  type Authorities,
  joined,
  type OwnBundle,
  publishedBy,
  readOwnBundle,
  sameAuthorities,
  unionOf,
  withoutExpired,
  withoutKey,
  writeOwnBundle,
} from "./own-bundle.ts";
import type { Registry } from "./registry.ts";

export type DeleteMode = "restrict" | "delete" | "dissociate";

export interface BundlesOptions {
  readonly store: Store;
  readonly registry: Registry;
  /** Of this server, for as long as its data folder lives. */
  readonly serverId: string;
  readonly onError?: (error: unknown) => void;
}

/** The bundle of our own trust domain, to which each server adds its authorities, and those of the trust domains we federate with. */
export class Bundles {
  /** What the authorities of all servers publish, with what an operator appended. */
  readonly own: Cell<Bundle>;
  readonly #options: BundlesOptions;
  readonly #federated = new Map<TrustDomain, Bundle>();
  readonly #changes = new Map<TrustDomain, number>();
  #stored: OwnBundle;
  /** What this server signs with; null before it said so. */
  #local: Bundle | null = null;
  /** What is believed from an upstream authority; null where there is none. */
  #upstream: Cell<Bundle> | null = null;
  /** What our own signers announced last. */
  #signers: Bundle | null = null;
  /** All that this run of the server published. */
  #announced: Authorities | null = null;

  constructor(options: BundlesOptions) {
    const { registry } = options;
    const { trustDomain } = registry;
    this.#options = options;
    this.#stored = readOwnBundle(trustDomain, registry.bundle(trustDomain));
    this.own = new Cell(this.#union());
    for (const record of registry.bundles().filter((one) => one.trustDomain !== trustDomain)) {
      this.#federated.set(record.trustDomain, bundleFromDocument(record.trustDomain, record.document));
    }
    registry.watch((change) => {
      if (change.kind === "bundle") {
        this.#apply(change.id, change.bundle);
      }
    });
  }

  /** Grows with each change of a trust domain's bundle; 0 where nothing changed since the start. */
  changesOf(trustDomain: TrustDomain): number {
    return this.#changes.get(trustDomain) ?? 0;
  }

  #union(): Bundle {
    return unionOf(this.#stored, this.#local ?? emptyBundle(this.#options.registry.trustDomain));
  }

  #apply(trustDomain: TrustDomain, record: BundleRecord | null): void {
    this.#changes.set(trustDomain, this.changesOf(trustDomain) + 1);
    if (trustDomain === this.#options.registry.trustDomain) {
      this.#stored = readOwnBundle(trustDomain, record);
      this.own.set(this.#union());
    } else if (record === null) {
      this.#federated.delete(trustDomain);
    } else {
      this.#federated.set(trustDomain, bundleFromDocument(trustDomain, record.document));
    }
  }

  /**
   * Publishes what this server signs with. INVARIANT: once it resolves every server has been told, or will be as soon as it hears
   * of anything again; nothing is signed before. `fresh`: this server has no memory of an earlier run, whose keys are lost.
   */
  async announce(signers: Bundle, fresh: boolean): Promise<void> {
    const { serverId } = this.#options;
    const next = this.#withUpstream(signers);
    const stored = this.#stored.servers.get(serverId);
    const before = this.#announced ?? (fresh ? undefined : stored);
    // Also what fails to be published may have got there.
    this.#announced = before === undefined ? next : joined([before, next]);
    if (!sameAuthorities(stored, publishedBy(stored, before, next))) {
      await this.#changeOwn((own) => {
        const bundle = publishedBy(own.servers.get(serverId), before, next);
        // SPEC: a sequence never goes down: not below what a version counted that kept it with the keys.
        const sequence = Math.max(own.sequence, Number(next.sequence + own.appended.sequence) - 1);
        return { ...own, sequence, servers: new Map([...own.servers, [serverId, bundle]]) };
      });
    }
    this.#announced = next;
    this.#signers = signers;
    this.#local = next;
    this.own.set(this.#union());
  }

  /** Takes out what expired, also of servers that are no more; puts back what is ours, should it be missing. */
  async prune(now: number, appendedBefore = now): Promise<void> {
    if (withoutExpired(this.#stored, now, appendedBefore) !== this.#stored) {
      await this.#changeOwn((own) => withoutExpired(own, now, appendedBefore));
    }
    if (this.#signers !== null) {
      await this.announce(this.#signers, false);
    }
  }

  /** What is believed from above belongs to what this server publishes; a change that cannot be published is tried again by `prune`. */
  follow(upstream: Cell<Bundle>): void {
    this.#upstream = upstream;
    upstream.watch(() => {
      if (this.#signers !== null) {
        this.announce(this.#signers, false).catch((error: unknown) => this.#options.onError?.(error));
      }
    });
  }

  #withUpstream(signers: Bundle): Bundle {
    const upstream = this.#upstream?.value;
    return upstream === undefined
      ? signers
      : { ...signers, ...joined([signers, upstream]), sequence: signers.sequence + upstream.sequence };
  }

  /** Adds authorities to our own bundle. */
  async append(extra: Authorities): Promise<Bundle> {
    await this.#changeOwn((own) => {
      const sequence = own.appended.sequence + 1n;
      return { ...own, appended: { ...own.appended, ...joined([own.appended, extra]), sequence } };
    });
    return this.own.value;
  }

  /** Takes out a JWT key that is not this server's: appended, from below, or of a server that is no more. Whether it was there. */
  async withdrawKey(keyId: string): Promise<boolean> {
    const there = this.own.value.jwtAuthorities.some((authority) => authority.keyId === keyId);
    if (there) {
      await this.#changeOwn((own) => withoutKey(own, keyId));
    }
    return there;
  }

  /** RACE: other servers change it too; each change is made on what is there, in one transaction. */
  async #changeOwn(change: (own: OwnBundle) => OwnBundle): Promise<void> {
    const { store, registry } = this.#options;
    const { trustDomain } = registry;
    await store.bundles.put(trustDomain, (current) => {
      const before = readOwnBundle(trustDomain, current);
      const after = change(before);
      return after === before && current !== null
        ? current
        : writeOwnBundle(trustDomain, { ...after, sequence: after.sequence + 1 });
    });
  }

  /** In order of trust domain. */
  federated(): readonly Bundle[] {
    return [...this.#federated.values()].sort((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1));
  }

  federatedWith(trustDomain: TrustDomain): Bundle | null {
    return this.#federated.get(trustDomain) ?? null;
  }

  /**
   * Makes or changes the bundle of another trust domain. Errors: `invalid-argument` for our own; what `change` throws.
   */
  async set(trustDomain: TrustDomain, change: (current: Bundle | null) => Bundle): Promise<Bundle> {
    this.#refuseOwn(trustDomain);
    return this.#write(trustDomain, change);
  }

  /**
   * Forgets a trust domain. Entries that federate with it forbid it (`restrict`), go with it (`delete`), or lose it
   * (`dissociate`). Errors: `invalid-argument` for our own, `not-found`, `failed-precondition`.
   */
  async delete(trustDomain: TrustDomain, mode: DeleteMode): Promise<void> {
    this.#refuseOwn(trustDomain);
    if (this.federatedWith(trustDomain) === null) {
      throw new EveryhopError("not-found", "bundle not found");
    }
    const entries = this.#options.registry.entries().filter(({ federatesWith }) => federatesWith.includes(trustDomain));
    if (entries.length > 0 && mode === "restrict") {
      throw new EveryhopError(
        "failed-precondition",
        `cannot delete bundle; federated with ${entries.length} registration entries`,
        { hint: "use mode `dissociate` to take it out of them, or `delete` to delete them too" },
      );
    }
    for (const { id } of entries) {
      if (mode === "delete") {
        await this.#options.registry.deleteEntry(id);
      } else {
        const without = (names: readonly string[]) => names.filter((name) => name !== trustDomain);
        await this.#options.registry.updateEntry(id, (entry) => ({
          ...entry,
          federatesWith: without(entry.federatesWith),
        }));
      }
    }
    await this.#options.store.bundles.delete(trustDomain);
  }

  #refuseOwn(trustDomain: TrustDomain): void {
    if (trustDomain === this.#options.registry.trustDomain) {
      throw new EveryhopError("invalid-argument", "the server's own trust domain is not a federated one");
    }
  }

  async #write(trustDomain: TrustDomain, change: (current: Bundle | null) => Bundle): Promise<Bundle> {
    const record = await this.#options.store.bundles.put(trustDomain, (current) => {
      const bundle = change(current === null ? null : bundleFromDocument(trustDomain, current.document));
      return { trustDomain, sequence: (current?.sequence ?? 0) + 1, document: bundleToDocument(bundle) };
    });
    return bundleFromDocument(trustDomain, record.document);
  }
}
