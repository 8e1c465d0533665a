/** What identities are handed out for: a process, or a Kubernetes object that a broker names. */
import type { Selector } from "../../core/entries/selector.ts";

export interface Subject {
  /** What it was, when it was last looked at. */
  readonly attestation: { readonly selectors: readonly Selector[] };
  /** Whether `attestation` may no longer be true. */
  readonly stale: boolean;
  /** What it is at this moment. Rejects where it is gone. */
  current(): Promise<{ readonly selectors: readonly Selector[] }>;
  /** Calls `tell` whenever it may be gone or another; the function returned ends that. */
  onSuspicion(tell: () => void): () => void;
  close(): void;
}
