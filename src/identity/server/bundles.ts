import { Cell } from "../../core/base/cell.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { type Bundle, emptyBundle, type JwtAuthority } from "../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import type { Store } from "../../io/store/store.ts";
import { bundleFromDocument, bundleToDocument } from "./bundle-wire.ts";
import type { Registry } from "./registry.ts";

export type DeleteMode = "restrict" | "delete" | "dissociate";

/** What our own bundle is made of, besides what an operator appended. */
export interface OwnAuthorities {
  /** What our own signers publish. */
  readonly authorities: Cell<Bundle>;
  /** What is believed from an upstream authority. */
  readonly upstream?: Cell<Bundle> | null;
}

/** The bundle of our own trust domain, and those of the trust domains we federate with. */
export class Bundles {
  /** What our authorities publish, with what an operator appended. */
  readonly own: Cell<Bundle>;
  readonly #store: Store;
  readonly #registry: Registry;
  readonly #authorities: Cell<Bundle>;
  /** What is believed from above; null where nobody is. */
  readonly #upstream: Cell<Bundle> | null;
  readonly #federated: Map<TrustDomain, Bundle>;
  readonly #changes = new Map<TrustDomain, number>();
  #appended: Bundle;

  private constructor(
    store: Store,
    registry: Registry,
    { authorities, upstream = null }: OwnAuthorities,
    kept: Map<TrustDomain, Bundle>,
  ) {
    const { trustDomain } = registry;
    this.#store = store;
    this.#registry = registry;
    this.#authorities = authorities;
    this.#upstream = upstream;
    this.#appended = kept.get(trustDomain) ?? emptyBundle(trustDomain);
    kept.delete(trustDomain);
    this.#federated = kept;
    this.own = new Cell(this.#merged());
    authorities.watch(() => this.own.set(this.#merged()));
    upstream?.watch(() => this.own.set(this.#merged()));
  }

  static async open(store: Store, registry: Registry, own: OwnAuthorities): Promise<Bundles> {
    const kept = new Map<TrustDomain, Bundle>();
    for (const { trustDomain, document } of registry.bundles()) {
      kept.set(trustDomain, bundleFromDocument(trustDomain, document));
    }
    const bundles = new Bundles(store, registry, own, kept);
    registry.watch((change) => {
      if (change.kind === "bundle") {
        bundles.#apply(
          change.id,
          change.bundle === null ? null : bundleFromDocument(change.id, change.bundle.document),
        );
      }
    });
    return bundles;
  }

  /** Grows with each change of a trust domain's bundle; 0 where nothing changed since the start. */
  changesOf(trustDomain: TrustDomain): number {
    return this.#changes.get(trustDomain) ?? 0;
  }

  #apply(trustDomain: TrustDomain, bundle: Bundle | null): void {
    this.#changes.set(trustDomain, this.changesOf(trustDomain) + 1);
    if (trustDomain === this.#registry.trustDomain) {
      this.#appended = bundle ?? emptyBundle(trustDomain);
      this.own.set(this.#merged());
    } else if (bundle === null) {
      this.#federated.delete(trustDomain);
    } else {
      this.#federated.set(trustDomain, bundle);
    }
  }

  /** Each part counts its changes, and none ever counts down: so does the sum. */
  #merged(): Bundle {
    const ours = this.#authorities.value;
    const parts = [ours, this.#appended, ...(this.#upstream === null ? [] : [this.#upstream.value])];
    return {
      ...ours,
      x509Authorities: distinctDers(parts.flatMap(({ x509Authorities }) => x509Authorities)),
      taintedX509KeyIds: [...new Set(parts.flatMap(({ taintedX509KeyIds }) => taintedX509KeyIds))],
      // The first of a name stands: nobody else's key takes the place of one of ours.
      jwtAuthorities: distinctKeys(parts.flatMap(({ jwtAuthorities }) => jwtAuthorities)),
      sequence: parts.reduce((sum, { sequence }) => sum + sequence, 0n),
    };
  }

  /** Adds authorities to our own bundle. */
  async append(extra: Pick<Bundle, "x509Authorities" | "jwtAuthorities" | "taintedX509KeyIds">): Promise<Bundle> {
    const { trustDomain } = this.#registry;
    await this.#write(trustDomain, (current) => {
      const before = current ?? emptyBundle(trustDomain);
      return {
        ...before,
        x509Authorities: distinctDers([...before.x509Authorities, ...extra.x509Authorities]),
        taintedX509KeyIds: [...new Set([...before.taintedX509KeyIds, ...extra.taintedX509KeyIds])],
        jwtAuthorities: distinctKeys([...before.jwtAuthorities, ...extra.jwtAuthorities]),
        sequence: before.sequence + 1n,
      };
    });
    return this.own.value;
  }

  /** Takes out of what was added what expired before. */
  async prune(before: number): Promise<void> {
    const isOver = (end: number | null): boolean => end !== null && end <= before;
    const isOld = (der: Uint8Array): boolean => isOver(parseCertificate(der).notAfterMs);
    const { x509Authorities, jwtAuthorities } = this.#appended;
    if (!x509Authorities.some(isOld) && !jwtAuthorities.some(({ expiresAtMs }) => isOver(expiresAtMs))) {
      return;
    }
    await this.#write(this.#registry.trustDomain, (current) => {
      const kept = current ?? emptyBundle(this.#registry.trustDomain);
      return {
        ...kept,
        x509Authorities: kept.x509Authorities.filter((der) => !isOld(der)),
        jwtAuthorities: kept.jwtAuthorities.filter(({ expiresAtMs }) => !isOver(expiresAtMs)),
        sequence: kept.sequence + 1n,
      };
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
    const entries = this.#registry.entries().filter(({ federatesWith }) => federatesWith.includes(trustDomain));
    if (entries.length > 0 && mode === "restrict") {
      throw new EveryhopError(
        "failed-precondition",
        `cannot delete bundle; federated with ${entries.length} registration entries`,
        { hint: "use mode `dissociate` to take it out of them, or `delete` to delete them too" },
      );
    }
    for (const { id } of entries) {
      if (mode === "delete") {
        await this.#registry.deleteEntry(id);
      } else {
        const without = (names: readonly string[]) => names.filter((name) => name !== trustDomain);
        await this.#registry.updateEntry(id, (entry) => ({ ...entry, federatesWith: without(entry.federatesWith) }));
      }
    }
    await this.#store.bundles.delete(trustDomain);
  }

  #refuseOwn(trustDomain: TrustDomain): void {
    if (trustDomain === this.#registry.trustDomain) {
      throw new EveryhopError("invalid-argument", "the server's own trust domain is not a federated one");
    }
  }

  async #write(trustDomain: TrustDomain, change: (current: Bundle | null) => Bundle): Promise<Bundle> {
    const record = await this.#store.bundles.put(trustDomain, (current) => {
      const bundle = change(current === null ? null : bundleFromDocument(trustDomain, current.document));
      return { trustDomain, sequence: (current?.sequence ?? 0) + 1, document: bundleToDocument(bundle) };
    });
    return bundleFromDocument(trustDomain, record.document);
  }
}

const distinctDers = (ders: readonly Uint8Array[]): Uint8Array[] =>
  distinct(ders, (der) => Buffer.from(der).toString("base64"));
const distinctKeys = (keys: readonly JwtAuthority[]): JwtAuthority[] => distinct(keys, ({ keyId }) => keyId);

function distinct<T>(items: readonly T[], key: (item: T) => string): T[] {
  return [...new Map(items.map((item) => [key(item), item] as const).reverse()).values()].reverse();
}
