/** What a decision says. Verdicts are built when policies are compiled: deciding allocates nothing. */
export type Reason =
  | "no-policy"
  | "allow-rule"
  | "no-allow-matched"
  | "deny-rule"
  | "custom-denied"
  | "plaintext-refused"
  | "bad-token"
  | "bad-request"
  | "killed";

export interface Verdict {
  readonly decision: "allow" | "deny";
  /** What the proxy answers: 200, 400, 401, 403; for TCP and refused plaintext 0 = accepted, -1 = closed. */
  readonly status: number;
  readonly reason: Reason;
  /** The deciding policy as `namespace/name`. */
  readonly policy: string | null;
  readonly rule: number | null;
  /** AUDIT policies that matched. */
  readonly audit: readonly string[];
  /** What the decision would be with every dry-run policy in force, and which of them makes it so. */
  readonly dryRun: { readonly decision: "allow" | "deny"; readonly policy: string | null };
  /** A CUSTOM rule that matched: its provider must allow before this verdict counts. */
  readonly custom: { readonly provider: string; readonly policy: string; readonly rule: number } | null;
}

function refusal(status: number, reason: Reason): Verdict {
  return {
    decision: "deny",
    status,
    reason,
    policy: null,
    rule: null,
    audit: [],
    dryRun: { decision: "deny", policy: null },
    custom: null,
  };
}

/** Decided before any AuthorizationPolicy is asked. */
export const PLAINTEXT_REFUSED = refusal(-1, "plaintext-refused");
export const BAD_REQUEST = refusal(400, "bad-request");
export const BAD_TOKEN = refusal(401, "bad-token");
export const WRONG_AUDIENCE = refusal(403, "bad-token");
export const KILLED = refusal(403, "killed");
export const KILLED_TCP = refusal(-1, "killed");
