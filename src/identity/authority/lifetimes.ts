import { formatDuration } from "../../core/base/duration.ts";
import { activateAtMs } from "./rotation.ts";

export interface Lifetimes {
  readonly caTtlMs: number;
  readonly x509SvidTtlMs: number;
  readonly jwtSvidTtlMs: number;
}

/** The longest SVID that a CA of this life signs in full at any moment of its service: a sixth of it. As SPIRE. */
export function maxSvidTtlMs(caTtlMs: number): number {
  return caTtlMs - activateAtMs({ id: "", issuedAtMs: 0, notAfterMs: caTtlMs });
}

const HOUR = 3_600_000;

/**
 * Life of an agent's own SVID: as configured, or as long as other SVIDs, but an hour at least (as far as the CA allows it): an agent
 * that joined by a token cannot come back once its SVID has ended, and the server may be away for a while.
 */
export function agentTtlMs({
  caTtlMs = 24 * HOUR,
  x509SvidTtlMs = HOUR,
  agentTtlMs: configured,
}: Partial<Lifetimes> & { readonly agentTtlMs?: number }): number {
  return configured ?? Math.max(x509SvidTtlMs, Math.min(HOUR, maxSvidTtlMs(caTtlMs)));
}

export interface LifetimeFinding {
  /** Which of `ca`'s fields. */
  readonly field: "x509SvidTtl" | "jwtSvidTtl" | "agentTtl";
  readonly message: string;
  readonly hint: string;
}

/** What an operator should know of these lifetimes; empty where all is well. */
export function lifetimeFindings(configured: Parameters<typeof agentTtlMs>[0]): readonly LifetimeFinding[] {
  const { caTtlMs = 24 * HOUR, x509SvidTtlMs = HOUR, jwtSvidTtlMs = 300_000 } = configured;
  const longest = maxSvidTtlMs(caTtlMs);
  const rows = [
    ["x509SvidTtl", "X.509-SVIDs", x509SvidTtlMs],
    ["jwtSvidTtl", "JWT-SVIDs", jwtSvidTtlMs],
    ["agentTtl", "agents' SVIDs", agentTtlMs(configured)],
  ] as const;
  return rows
    .filter(([, , ttl]) => ttl > longest)
    .map(([field, name, ttl]) => {
      const [asked, ca, given, need] = [ttl, caTtlMs, longest, ttl * 6].map(formatDuration);
      const message = `${name} of ${asked} are cut short by a CA of ${ca}, which is replaced when a sixth of it is left`;
      return { field, message, hint: `make them at most ${given}, or the CA ${need}` };
    });
}
