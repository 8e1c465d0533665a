import type { Registry } from "../io/metrics.ts";

/** What a sidecar tells of its own state, read when it is scraped. */
export interface SidecarGauges {
  readonly snapshotVersion: () => number;
  readonly connected: () => boolean;
  /** In ms; 0 where it has no SVID of its service. */
  readonly svidNotAfter: () => number;
  readonly connections: () => number;
}

export function sidecarGauges(registry: Registry, read: SidecarGauges): void {
  const version = registry.gauge("everyhop_snapshot_version", "Version of the snapshot in force; 0: none.").with();
  const connected = registry.gauge("everyhop_control_connected", "1 while the control plane is followed.").with();
  const expiry = registry
    .gauge("everyhop_svid_expiry_timestamp_seconds", "When the service's SVID ends; 0: there is none.")
    .with();
  const open = registry.gauge("everyhop_connections", "Connections held.").with();
  registry.collect(() => {
    version.value = read.snapshotVersion();
    connected.value = read.connected() ? 1 : 0;
    expiry.value = read.svidNotAfter() / 1_000;
    open.value = read.connections();
  });
}
