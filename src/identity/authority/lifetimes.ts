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

/** What an operator should know of these lifetimes, as sentences; empty where all is well. */
export function lifetimeFindings({ caTtlMs, x509SvidTtlMs, jwtSvidTtlMs }: Lifetimes): readonly string[] {
  const longest = maxSvidTtlMs(caTtlMs);
  const findings: string[] = [];
  for (const [name, ttl] of [
    ["X.509-SVIDs", x509SvidTtlMs],
    ["JWT-SVIDs", jwtSvidTtlMs],
  ] as const) {
    if (ttl > longest) {
      const [asked, given, need] = [ttl, longest, ttl * 6].map(formatDuration);
      findings.push(
        `${name} of ${asked} are cut short by a CA of ${formatDuration(caTtlMs)}: make them at most ${given}, or the CA ${need}`,
      );
    }
  }
  return findings;
}
