import { isRecord } from "../../core/jose/jwk.ts";
import type { SigningService } from "../intent/service.ts";

/** What the signer says it signed, to be held against the journal. */
export interface SignedLog {
  /** By serial, lower-case hex. */
  readonly signed: Map<string, Signed>;
  /** The keys it tells of. */
  readonly keys: ReadonlySet<string>;
  /** From when on it is kept, in milliseconds; never, where it is empty. */
  readonly since: number;
}

export interface Signed {
  readonly spiffeId: string;
  /** SHA-256 of what was signed. */
  readonly digest: string;
  readonly notAfterMs: number;
}

/** Kinds that the journal knows too; a request to an authority above is no certificate. */
const JOURNALED: readonly unknown[] = ["x509-svid", "x509-ca", "jwt-svid"];

/** Reads the whole log. Errors: `unavailable` while the signer is away. */
export async function readSignerLog(signer: Pick<SigningService, "log">): Promise<SignedLog> {
  const signed = new Map<string, Signed>();
  const keys = new Set<string>();
  let since = Number.POSITIVE_INFINITY;
  for (let after: number | null = 0; after !== null; ) {
    const { lines, next }: Awaited<ReturnType<SigningService["log"]>> = await signer.log(after);
    for (const line of lines) {
      const entry: unknown = JSON.parse(line);
      if (isRecord(entry)) {
        since = Math.min(since, Date.parse(String(entry.at)));
        if (typeof entry.by === "string") {
          keys.add(entry.by);
        }
        if (JOURNALED.includes(entry.kind)) {
          signed.set(String(entry.serial), {
            // A CA is the trust domain's, which its line does not repeat.
            spiffeId: typeof entry.id === "string" ? entry.id : String(entry.kind),
            digest: String(entry.digest),
            notAfterMs: Number(entry.until),
          });
        }
      }
    }
    after = next;
  }
  return { signed, keys, since };
}
