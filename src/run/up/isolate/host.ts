import { EveryhopError } from "../../../core/base/errors.ts";
import type { Host } from "../host.ts";

export async function isolatedHost(): Promise<Host> {
  throw new EveryhopError("not-supported", "not yet");
}
