import { randomUUID } from "node:crypto";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { makeSelector, type Selector } from "../../core/entries/selector.ts";
import { makeSpiffeId, pathOf, type SpiffeId, trustDomainOf } from "../../core/spiffe/id.ts";
import { verifyCsr } from "../../core/x509/csr.ts";
import { PermissionDeniedDetails_Reason as Reason } from "../../gen/spire/api/types/status_pb.js";
import type { NodeRecord, Store } from "../../io/store/store.ts";
import { provenByJoinToken, readJoinToken } from "../attest/node/join-token/verify.ts";
import type { Attempt, NodeVerifier, ProvenNode } from "../attest/node/proof.ts";
import type { IssuedX509Svid } from "../authority/x509-authority.ts";
import { agentDenied } from "./callers.ts";
import type { Issuer } from "./issuer.ts";
import type { Registry } from "./registry.ts";

export interface NodesOptions {
  readonly store: Store;
  readonly registry: Registry;
  readonly issuer: Issuer;
  readonly clock: Clock;
  /** By what nodes may prove themselves, beside join tokens. */
  readonly verifiers?: readonly NodeVerifier[];
}

/** What a node asks for, and how it proves that it may. */
export interface AttestRequest {
  readonly type: string;
  readonly payload: Uint8Array;
  readonly csr: Uint8Array;
}

export interface JoinToken {
  readonly value: string;
  readonly expiresAtMs: number;
}

/** Which agents are forgotten once they expired. */
export interface AgentPruning {
  readonly expiredForMs: number;
  /** Also those that cannot attest again by themselves. */
  readonly nonReattestable: boolean;
}

const DEFAULT_TOKEN_TTL_MS = 600_000;
const MAX_TOKEN_TTL_MS = 30 * 86_400_000;

/** Agents: how they come in, renew, and are thrown out. */
export class Nodes {
  readonly #options: NodesOptions;

  constructor(options: NodesOptions) {
    this.#options = options;
  }

  /**
   * Makes a join token, good for one agent. With `agentId` that agent also stands for this ID: an entry says so.
   * Errors: `invalid-argument`, `already-exists` for a `value` that is there.
   */
  async createJoinToken(options: {
    readonly ttlMs?: number;
    readonly value?: string;
    readonly agentId?: SpiffeId;
  }): Promise<JoinToken> {
    const { store, registry, clock } = this.#options;
    const { ttlMs = DEFAULT_TOKEN_TTL_MS, value = randomUUID(), agentId } = options;
    if (!(ttlMs > 0 && ttlMs <= MAX_TOKEN_TTL_MS)) {
      throw new EveryhopError("invalid-argument", "ttl is required, you must provide one of at most 30 days");
    }
    const { path } = provenByJoinToken(readJoinToken(Buffer.from(value)));
    const parentId = makeSpiffeId(registry.trustDomain, path);
    const expiresAtMs = Math.floor((clock.now() + ttlMs) / 1_000) * 1_000;
    await store.joinTokens.create(value, expiresAtMs);
    if (agentId !== undefined) {
      try {
        const selectors = [makeSelector("spiffe_id", parentId)];
        await registry.createEntry({ spiffeId: agentId, parentId, selectors });
      } catch (error) {
        await store.joinTokens.take(value, "withdrawn");
        throw error;
      }
    }
    return { value, expiresAtMs };
  }

  /**
   * Proves a node, and gives it its first SVID. INVARIANT: a join token is gone before anything is signed for it.
   * Errors: `invalid-argument`, `failed-precondition` for an unknown attestation, `permission-denied` for a banned agent and for
   * what proves nothing, `unavailable` where who has to be asked does not answer.
   */
  async attest(
    { type, payload, csr }: AttestRequest,
    peer: Pick<Attempt, "address" | "challenge">,
  ): Promise<{ svid: IssuedX509Svid; node: NodeRecord }> {
    // Before the token is taken: a mistake in the request should not cost the operator another one.
    verifyCsr(csr);
    const proven = await this.#prove(type, payload, peer);
    const { path, reattestable, once = false } = proven;
    const id = makeSpiffeId(this.#options.registry.trustDomain, path);
    if (this.#options.registry.node(id)?.banned === true) {
      throw agentDenied(Reason.AGENT_BANNED, "failed to attest: agent is banned");
    }
    const svid = await this.#options.issuer.agentX509(path, csr);
    const node: NodeRecord = {
      id,
      attestationType: type,
      serial: svid.serial,
      expiresAt: svid.notAfterMs,
      next: null,
      banned: false,
      canReattest: reattestable,
      selectors: selectorsOf(id, proven.selectors),
      agentVersion: "",
    };
    await this.#options.store.nodes.attested(node, { first: once });
    return { svid, node };
  }

  async #prove(type: string, payload: Uint8Array, peer: Pick<Attempt, "address" | "challenge">): Promise<ProvenNode> {
    if (type !== "join_token") {
      const { registry, clock, verifiers = [] } = this.#options;
      const verifier = verifiers.find((one) => one.type === type);
      if (verifier !== undefined) {
        const isAttested = (id: SpiffeId) => registry.node(id) !== null;
        return verifier.verify(payload, { ...peer, isAttested, trustDomain: registry.trustDomain, now: clock.now() });
      }
      throw new EveryhopError("failed-precondition", `could not find node attestor type \`${type.slice(0, 64)}\``, {
        hint: "name it under `nodeAttestors` in the server's configuration",
      });
    }
    const token = readJoinToken(payload);
    const taken = await this.#take(token);
    if (taken === null) {
      throw new EveryhopError(
        "invalid-argument",
        "failed to attest: join token does not exist or has already been used",
        { hint: "make another one with `everyhop token generate`" },
      );
    }
    if (taken.expiresAt <= this.#options.clock.now()) {
      throw new EveryhopError("invalid-argument", "failed to attest: join token expired", {
        hint: "make another one with `everyhop token generate`",
      });
    }
    return provenByJoinToken(token);
  }

  /** Once more where nobody knows whether it was taken: an agent's only token shall not be lost with a connection. */
  async #take(token: string): Promise<{ readonly expiresAt: number } | null> {
    const claim = randomUUID();
    const { joinTokens } = this.#options.store;
    return joinTokens.take(token, claim).catch((error: unknown) => {
      if (error instanceof EveryhopError && error.code === "unavailable") {
        return joinTokens.take(token, claim);
      }
      throw error;
    });
  }

  /** Keeps what an agent says of itself. */
  async status({ id, agentVersion: known }: NodeRecord, agentVersion: string): Promise<void> {
    if (agentVersion !== "" && agentVersion !== known) {
      await this.#options.store.nodes.update(id, (node) => ({ ...node, agentVersion }));
    }
  }

  /** A new SVID for an attested agent. The one it has stays good until this one is used. */
  async renew({ id, canReattest }: NodeRecord, csr: Uint8Array): Promise<IssuedX509Svid> {
    if (canReattest) {
      throw agentDenied(Reason.AGENT_MUST_REATTEST, "agent must reattest instead of renew");
    }
    const svid = await this.#options.issuer.agentX509(pathOf(id), csr);
    const next = { serial: svid.serial, expiresAt: svid.notAfterMs };
    const node = await this.#options.store.nodes.update(id, (node) => (node.banned ? node : { ...node, next }));
    // RACE: thrown out while the journal was written: what was signed is not handed out.
    if (node === null || node.banned) {
      throw node === null
        ? agentDenied(Reason.AGENT_NOT_ATTESTED, "agent is not attested")
        : agentDenied(Reason.AGENT_BANNED, "agent is banned");
    }
    return svid;
  }

  /** Throws an agent out and keeps it out until it is evicted. Errors: `not-found`. */
  async ban(id: SpiffeId): Promise<void> {
    this.#checkAgentId(id);
    const gone = { serial: "", next: null, banned: true } as const;
    if ((await this.#options.store.nodes.update(id, (node) => ({ ...node, ...gone }))) === null) {
      throw new EveryhopError("not-found", "agent not found");
    }
  }

  /** Forgets an agent; it may come back by another attestation. Errors: `not-found`. */
  async evict(id: SpiffeId): Promise<void> {
    this.#checkAgentId(id);
    if (!(await this.#options.store.nodes.delete(id))) {
      throw new EveryhopError("not-found", "agent not found");
    }
  }

  /** Forgets agents that expired long enough ago; those that are banned stay banned. */
  async prune(which: AgentPruning | null): Promise<void> {
    const { store, registry, clock } = this.#options;
    if (which === null) {
      return;
    }
    const before = clock.now() - which.expiredForMs;
    for (const { id, expiresAt, banned, canReattest } of registry.nodes()) {
      if (!banned && expiresAt < before && (canReattest || which.nonReattestable)) {
        await store.nodes.delete(id);
      }
    }
  }

  #checkAgentId(id: SpiffeId): void {
    if (trustDomainOf(id) !== this.#options.registry.trustDomain || !pathOf(id).startsWith("/spire/agent/")) {
      throw new EveryhopError("invalid-argument", `\`${id}\` is no agent of this trust domain`);
    }
  }
}

function selectorsOf(id: SpiffeId, found: readonly string[]): readonly Selector[] {
  return [...new Set([...found, `spiffe_id:${id}`])].sort() as Selector[];
}
