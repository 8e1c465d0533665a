import type { Cell } from "../core/base/cell.ts";
import type { SpiffeId } from "../core/spiffe/id.ts";

/** What the control plane asks of the identity registry: narrow, so that it cannot sign, create or delete anything. */
export interface Identities {
  /** Every identity that is cut off, oldest first. Kills outlive a restart. */
  readonly kills: Cell<readonly KilledIdentity[]>;
  /**
   * Cuts `id` off: from when this resolves no SVID is issued for it, it is on disk, and `kills` holds it. Killing again
   * gives the order that is there. `order` is opaque, unique, at most 64 characters of [A-Za-z0-9-].
   */
  kill(id: SpiffeId): Promise<KilledIdentity>;
  /** Undoes it; the order that was in force, or null where there was none. */
  restore(id: SpiffeId): Promise<KilledIdentity | null>;
  /** Whether a registration entry gives `id` to somebody: an answer from memory. */
  isRegistered(id: SpiffeId): boolean;
  /** Every identity that has a registration entry or an SVID not yet expired. Reads the journal: not for what is urgent. */
  known(): Promise<readonly IssuedIdentity[]>;
}

export interface KilledIdentity {
  readonly order: string;
  readonly spiffeId: SpiffeId;
  /** Milliseconds since the epoch. */
  readonly since: number;
}

/** An identity of the registry, with the newest SVID issued for it that has not expired, if there is one. */
export interface IssuedIdentity {
  readonly spiffeId: SpiffeId;
  readonly svid: { readonly serial: string; readonly notBefore: number; readonly notAfter: number } | null;
}
