import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { type Role, type Scope, scopeOf } from "../../core/entries/role.ts";
import { type SpiffeId, trustDomainOf } from "../../core/spiffe/id.ts";
import type { RefusedX509Svid, VerifiedX509Svid } from "../../core/spiffe/x509-svid.ts";
import {
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
} from "../../gen/spire/api/types/status_pb.js";
import { withDetail } from "../../io/rpc/errors.ts";
import type { NodeRecord, Store } from "../../io/store/store.ts";
import { METHODS, type MethodRule } from "./methods.ts";
import type { Registry } from "./registry.ts";

/** Who is at the other end of a connection, by what it proved when it was opened. */
export type Caller =
  /** Whoever may open the admin socket; which process that is, where the kernel says it. */
  | { readonly kind: "local"; readonly process: { readonly pid: number; readonly uid: number } | null }
  | {
      readonly kind: "remote";
      readonly address: string;
      /** What it sent, DER, leaf first. */
      readonly chain: readonly Uint8Array[];
      readonly svid: VerifiedX509Svid | null;
      /** Why the certificate it sent proves nothing; null where it sent none, or a good one. */
      readonly fault: RefusedX509Svid | null;
    };

export interface CallersOptions {
  readonly registry: Registry;
  readonly store: Store;
  readonly clock: Clock;
  readonly roles: readonly Role[];
  /** Administrators by configuration, beside those by entry. */
  readonly adminIds?: readonly SpiffeId[];
}

/** What a caller may do by the method it called. */
export interface Authorized {
  /** The calling agent, in methods of class `agent`. */
  readonly node: NodeRecord | null;
  /** To which identities, where it calls by a role; null: no limit. */
  readonly scope: Scope | null;
}

/** A permission that was refused for a reason an agent acts on: re-attest, or end. SPEC: SPIRE PermissionDeniedDetails. */
export function agentDenied(reason: Reason, message: string): EveryhopError {
  return withDetail(new EveryhopError("permission-denied", message), PermissionDeniedDetailsSchema, { reason });
}

const UNLIMITED: Authorized = { node: null, scope: null };

/** Decides who may call which method. */
export class Callers {
  readonly #registry: Registry;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #roles: readonly Role[];
  readonly #adminIds: ReadonlySet<SpiffeId>;

  constructor({ registry, store, clock, roles, adminIds = [] }: CallersOptions) {
    this.#registry = registry;
    this.#store = store;
    this.#clock = clock;
    this.#roles = roles;
    this.#adminIds = new Set(adminIds);
  }

  /**
   * Resolves where `caller` may call `method` (`package.Service/Method`): as whom, and within which limits.
   * Errors: `permission-denied`, for agents with the reason as a detail.
   */
  async authorize(method: string, caller: Caller): Promise<Authorized> {
    const rule: MethodRule = METHODS.get(method) ?? { callers: [] };
    const { callers } = rule;
    if (callers.includes("any") || (caller.kind === "local" && callers.includes("local"))) {
      return UNLIMITED;
    }
    if (caller.kind === "local") {
      throw denied(method);
    }
    const id = this.#identity(method, caller, callers.includes("agent"));
    if (callers.includes("admin") && this.#adminIds.has(id)) {
      return UNLIMITED;
    }
    for (const right of ["admin", "downstream"] as const) {
      if (callers.includes(right) && this.#registry.isGranted(id, right)) {
        return UNLIMITED;
      }
    }
    const scope = this.#scope(id, rule);
    if (scope.length > 0) {
      return { node: null, scope };
    }
    if (!callers.includes("agent")) {
      throw denied(method);
    }
    return { node: await this.#agent(id, caller.svid?.serial ?? ""), scope: null };
  }

  #scope(id: SpiffeId, { right, whole }: MethodRule): Scope {
    const scope = right === undefined ? [] : scopeOf(this.#roles, id, right);
    return whole === true ? scope.filter(({ under }) => under === null) : scope;
  }

  #identity(method: string, { svid, fault }: Caller & { kind: "remote" }, asAgent: boolean): SpiffeId {
    if (asAgent && (fault?.reason === "expired" || (svid !== null && svid.notAfterMs <= this.#clock.now()))) {
      throw agentDenied(Reason.AGENT_EXPIRED, "agent SVID is expired");
    }
    if (svid === null || svid.notAfterMs <= this.#clock.now()) {
      throw denied(method);
    }
    this.#registry.refuseKilled(svid.id);
    return svid.id;
  }

  /**
   * The node whose current SVID has `serial`. A renewed SVID becomes the current one when it is first used.
   * RACE: the agent may have attested or renewed at another server a moment ago: before it is refused the store is asked.
   */
  async #agent(id: SpiffeId, serial: string): Promise<NodeRecord> {
    const ours = trustDomainOf(id) === this.#registry.trustDomain;
    const known = ours ? this.#registry.node(id) : null;
    if (known?.serial === serial && !known.banned) {
      return known;
    }
    const node = ours ? await this.#store.nodes.get(id) : null;
    if (node === null) {
      throw agentDenied(Reason.AGENT_NOT_ATTESTED, "agent is not attested");
    }
    if (node.banned) {
      throw agentDenied(Reason.AGENT_BANNED, "agent is banned");
    }
    const promoted = [node.serial, node.next?.serial].includes(serial) ? await this.#promote(id, serial) : null;
    if (promoted === null) {
      throw agentDenied(Reason.AGENT_NOT_ACTIVE, "agent SVID is not the current one");
    }
    return promoted;
  }

  /** Also brings this server's memory up to what it was asked for: a write is told before it resolves, with all before it. */
  async #promote(id: SpiffeId, serial: string): Promise<NodeRecord | null> {
    // RACE: a ban, or a renewal after this one, may have come meanwhile: look again inside the transaction.
    const node = await this.#store.nodes.update(id, (current) =>
      current.next?.serial === serial && !current.banned
        ? { ...current, serial, expiresAt: current.next.expiresAt, next: null }
        : current,
    );
    return node?.serial === serial && !node.banned ? node : null;
  }
}

function denied(method: string): EveryhopError {
  return new EveryhopError("permission-denied", `authorization denied for method /${method}`);
}
