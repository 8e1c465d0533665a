import type { Clock } from "../../../core/base/clock.ts";
import type { TrustDomain } from "../../../core/spiffe/id.ts";
import type { Log } from "../../../io/log.ts";
import type { StateFile } from "../../../io/state-file.ts";
import type { Upstream } from "../../authority/upstream.ts";
import { type DiskUpstreamConfig, diskUpstream } from "./disk.ts";
import { KnownBundle } from "./known-bundle.ts";
import { type SpireUpstreamConfig, spireUpstream } from "./spire.ts";

export type UpstreamConfig = DiskUpstreamConfig | SpireUpstreamConfig;

export interface UpstreamOptions {
  readonly config: UpstreamConfig;
  readonly trustDomain: TrustDomain;
  /** Remembers what is believed from above. */
  readonly file: StateFile;
  readonly clock: Clock;
  readonly random: (count: number) => Uint8Array;
  readonly log: Log;
}

/** Errors: `storage-failed`. */
export async function openUpstream(options: UpstreamOptions): Promise<Upstream & { close(): void }> {
  const { config, trustDomain, file } = options;
  const known = await KnownBundle.open(trustDomain, file);
  return config.kind === "disk"
    ? { ...diskUpstream({ ...options, config, known }), close: () => {} }
    : spireUpstream({ ...options, config, known });
}
