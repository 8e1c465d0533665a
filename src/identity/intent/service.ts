import type { Cell } from "../../core/base/cell.ts";
import type { LogPage } from "../../io/chained-log/chained-log.ts";
import type { HeldKey, Intent, KeyUse, Permit } from "./intent.ts";
import type { KeyType } from "./key-type.ts";

/**
 * The signer, as the server sees it. Every method: `unavailable` while it is away; a refusal of the signer's own comes as
 * `permission-denied` (a ceiling), `invalid-argument`, `failed-precondition` or `resource-exhausted`.
 */
export interface SigningService {
  /** Whether keys survive the signer. */
  readonly durable: boolean;
  /** By id. A new value when the signer was started anew: keys in memory are gone then. */
  readonly keys: Cell<ReadonlyMap<string, HeldKey>>;
  createKey(use: KeyUse, type: KeyType): Promise<HeldKey>;
  /** Builds and lints; what is asked for in one turn of the event loop goes in one message. */
  prepare(intent: Intent): Promise<Permit>;
  /** The certificate's or request's DER; a token in ASCII. */
  sign(permit: Permit): Promise<Uint8Array>;
  /** Keeps a CA's certificate with its key: from then on it signs leaves. */
  adopt(id: string, chain: readonly Uint8Array[]): Promise<void>;
  /** Destroys a key; one that is not there is no error. */
  discard(use: KeyUse, id: string): Promise<void>;
  /** What the signer signed, from the oldest on. `after` is 0, or `next` of an earlier page. */
  log(after: number): Promise<LogPage>;
}
