/** What the data path asks the policy. */
import type { NearestMiss } from "../core/api/admin.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";

export type MtlsMode = "STRICT" | "PERMISSIVE" | "DISABLE";

export interface Verdict {
  readonly allow: boolean;
  /** A reason of `policy decide`. */
  readonly reason: string;
  /** `namespace/name`, where one decided. */
  readonly policy: string | null;
  readonly rule: number | null;
}

/** HOT: one object for each connection, filled anew for each request. */
export interface ConnectionFacts {
  /** Proven by mutual TLS; null otherwise. */
  principal: SpiffeId | null;
  sourceIp: string;
  destinationIp: string;
  /** The port in the mesh. */
  port: number;
  sni: string | null;
}

export interface RequestFacts extends ConnectionFacts {
  method: string;
  /** Normalised, with its query. */
  path: string;
  host: string;
  /** The lines of a field that are forwarded, by lower-case name. */
  values(name: string): readonly string[];
}

export interface Enforcer {
  readonly mtls: MtlsMode;
  /** The target as it is decided on and forwarded; null: 400. */
  normalize(target: string): string | null;
  http(facts: RequestFacts): Verdict;
  tcp(facts: ConnectionFacts): Verdict;
  /** Expensive; for denials that are reported. `request` null: TCP. */
  nearestMiss(facts: ConnectionFacts, request: RequestFacts | null): NearestMiss | null;
}

export const KILLED: Verdict = { allow: false, reason: "killed", policy: null, rule: null };
export const PLAINTEXT_REFUSED: Verdict = { allow: false, reason: "plaintext-refused", policy: null, rule: null };
