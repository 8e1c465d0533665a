/** The documents of the admin API: what `everyhop status --json` and its like print. Stable: see docs/json.md. */
import type { Issue } from "../base/errors.ts";

export interface StatusDocument {
  readonly version: number;
  readonly trustDomain: string;
  readonly identities: readonly IdentityStatus[];
  readonly proxies: readonly ProxyStatus[];
  readonly policies: readonly PolicyStatus[];
  readonly problems: readonly Issue[];
  readonly denials: readonly DenialDocument[];
  readonly dryRuns: readonly DryRunStatus[];
  readonly kills: readonly KillStatus[];
}

export interface IdentityStatus {
  readonly spiffeId: string;
  readonly serial: string;
  readonly notBefore: string;
  readonly notAfter: string;
  /** It should have been renewed at half its life, and less than a quarter is left. */
  readonly overdue: boolean;
  /** The service whose sidecar uses it; null for the server, agents and sidecars themselves. */
  readonly service: string | null;
}

/** `pending`: sent, not yet acknowledged. `stale`: not connected; it goes on with its last snapshot. */
export type ProxyState = "synced" | "pending" | "stale" | "rejected";

export interface ProxyStatus {
  readonly service: string;
  readonly spiffeId: string;
  readonly version: number;
  readonly state: ProxyState;
  readonly error: string | null;
}

export interface PolicyStatus {
  readonly name: string;
  readonly kind: string;
  readonly source: string;
  readonly findings: readonly Issue[];
}

/** What would have to be otherwise for the request to be allowed. */
export interface NearestMiss {
  readonly kind: string;
  readonly policy: string;
  /** Null where it is not about a rule. */
  readonly rule: number | null;
  readonly would: string;
  /** RFC 6902 operations on that resource. */
  readonly patch: readonly unknown[];
}

export interface DenialDocument {
  readonly id: string;
  readonly time: string;
  /** Proven identity, or null where nothing was proven. */
  readonly source: string | null;
  readonly sourceIp: string | null;
  readonly destination: string;
  readonly port: number;
  readonly method: string | null;
  readonly path: string | null;
  readonly host: string | null;
  readonly reason: string;
  readonly policy: string | null;
  readonly rule: number | null;
  readonly snapshotVersion: number;
  /** Null where no change of one resource would do. */
  readonly nearestMiss: NearestMiss | null;
  /** The changes that together would do; none where none helps. */
  readonly changes: readonly NearestMiss[];
}

/** The answer of `everyhop why`. What is said of policies is said of those in force when asked, at `version`. */
export interface WhyDocument extends DenialDocument {
  /** What the deciding rule says; null where none decided, or it is not there any more. */
  readonly ruleText: string | null;
  /** The rules that allow something at the destination. */
  readonly allowed: readonly string[];
  readonly version: number;
}

/** Decisions at one service where dry-run policies are, since these policies are in force. */
export interface DryRunStatus {
  readonly service: string;
  readonly enforced: "allow" | "deny";
  /** What would be decided with every dry-run policy in force. */
  readonly would: "allow" | "deny";
  /** The dry-run policy that makes the difference; null where none does. */
  readonly policy: string | null;
  readonly count: number;
}

export interface KillStatus {
  readonly spiffeId: string;
  readonly since: string;
}

export interface KillDocument {
  readonly order: string;
  readonly spiffeId: string;
  /** Sidecars that have the order in force. */
  readonly confirmed: number;
  readonly total: number;
  /** Services whose sidecar did not confirm in time. */
  readonly unconfirmed: readonly string[];
  readonly connectionsClosed: number;
  readonly ms: number;
}

/** How far the trust bundle has come among the agents of this server. */
export interface BundleProgressDocument {
  /** 64 bits: as text. */
  readonly sequence: string;
  readonly agents: readonly {
    readonly spiffeId: string;
    /** What it said it has; null where it has said nothing to this server. */
    readonly sequence: string | null;
    readonly current: boolean | null;
  }[];
}
