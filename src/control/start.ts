/** The control plane of one server process: what it needs, and what it gives. `run/server` wires it to the registry. */
import type { Registry as MetricsRegistry } from "prom-client";
import type { StatusDocument } from "../core/api/admin.ts";
import type { Cell } from "../core/base/cell.ts";
import type { Clock } from "../core/base/clock.ts";
import type { SpiffeId, TrustDomain } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import type { Admin } from "../gen/everyhop/admin/admin_pb.js";
import type { Log } from "../io/log.ts";
import type { Handlers } from "../io/rpc/adapter.ts";
import type { Service } from "./service.ts";

export interface ControlOptions {
  readonly trustDomain: TrustDomain;
  /** Absolute paths of the files and folders with Istio's resources; they are watched. */
  readonly policies: readonly string[];
  /** Places in messages are written relative to it: the mesh's folder. */
  readonly baseDir: string;
  /** meshConfig as the configuration file has it (Istio's names), plain data; core/policy/mesh-config reads it. */
  readonly meshConfig: unknown;
  readonly services: Cell<readonly Service[]>;
  /** Where sidecars come; port 0 takes a free one. Several: one per bridge under `--isolate`. */
  readonly listen: readonly { readonly host: string; readonly port: number }[];
  /** The server's own SVID, shown to sidecars. */
  readonly svid: Cell<X509Svid>;
  /** DER authorities of our trust domain: what a sidecar's chain must end in. */
  readonly authorities: Cell<readonly Uint8Array[]>;
  readonly identities: Identities;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: MetricsRegistry;
}

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
  /** Every identity that has a registration entry or an SVID not yet expired. */
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

export interface Control {
  /** The addresses bound, in the order of `listen`. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** Handlers for the admin socket; the server adds its own of the same service. */
  readonly admin: Pick<Handlers<typeof Admin>, "status" | "why" | "kill" | "restore">;
  status(): Promise<StatusDocument>;
  close(): Promise<void>;
}
