import type { RegistrationEntry } from "../../core/entries/entry.ts";
import { makeSpiffeId, type SpiffeId } from "../../core/spiffe/id.ts";
import type { Authority } from "../authority/authority.ts";
import type { IssuedJwtSvid } from "../authority/jwt-authority.ts";
import type { IssuedX509Svid } from "../authority/x509-authority.ts";
import type { IdentityMetrics } from "./metrics.ts";
import type { Registry } from "./registry.ts";

/** The only door to the authority for those who ask over the wire: nothing is handed out to an identity that is cut off. */
export class Issuer {
  readonly #authority: Authority;
  readonly #registry: Registry;

  readonly #issued: IdentityMetrics["issued"];

  readonly #agentTtlMs: number;

  constructor(authority: Authority, registry: Registry, issued: IdentityMetrics["issued"], agentTtlMs = 0) {
    this.#authority = authority;
    this.#registry = registry;
    this.#issued = issued;
    this.#agentTtlMs = agentTtlMs;
  }

  x509ForEntry(entry: RegistrationEntry, csr: Uint8Array): Promise<IssuedX509Svid> {
    return this.x509(entry.spiffeId, csr, entry.id, { ttlMs: entry.x509SvidTtlMs, dnsNames: entry.dnsNames });
  }

  /** `reason`: the entry's id, or what else grants it. Errors: `permission-denied` where `id` is cut off; the authority's. */
  x509(
    id: SpiffeId,
    csr: Uint8Array,
    reason: string,
    { ttlMs = 0, dnsNames = [] }: { readonly ttlMs?: number; readonly dnsNames?: readonly string[] } = {},
  ): Promise<IssuedX509Svid> {
    return this.#unlessKilled("x509-svid", id, () =>
      this.#authority.issueX509Svid({ publicKey: { csr }, spiffeId: id, entryId: reason, ttlMs, dnsNames }),
    );
  }

  jwt(
    id: SpiffeId,
    audiences: readonly string[],
    reason: string,
    { ttlMs = 0, includeJwtId = false }: { readonly ttlMs?: number; readonly includeJwtId?: boolean } = {},
  ): Promise<IssuedJwtSvid> {
    return this.#unlessKilled("jwt-svid", id, () =>
      this.#authority.issueJwtSvid({ spiffeId: id, audiences, entryId: reason, ttlMs, includeJwtId }),
    );
  }

  /** The CA of a downstream server, for the entry that makes it one; DER, its certificate first. Errors: as `x509`. */
  downstreamCa(
    { id: entryId, spiffeId }: RegistrationEntry,
    csr: Uint8Array,
    ttlMs: number,
  ): Promise<readonly Uint8Array[]> {
    return this.#unlessKilled("x509-ca", spiffeId, () => this.#authority.certifyDownstream({ csr, ttlMs, entryId }));
  }

  agentX509(path: string, csr: Uint8Array): Promise<IssuedX509Svid> {
    const id = makeSpiffeId(this.#registry.trustDomain, path);
    return this.x509(id, csr, `agent:${id}`, { ttlMs: this.#agentTtlMs });
  }

  /** RACE: an order may come while the journal is written: what was signed meanwhile is not handed out. */
  async #unlessKilled<T>(
    kind: "x509-svid" | "x509-ca" | "jwt-svid",
    id: SpiffeId,
    issue: () => Promise<T>,
  ): Promise<T> {
    this.#registry.refuseKilled(id);
    const issued = await issue();
    this.#registry.refuseKilled(id);
    this.#issued(kind);
    return issued;
  }
}
