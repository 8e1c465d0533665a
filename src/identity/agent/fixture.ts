/** For tests: agents that run against a `FakeServer`. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sidecarId } from "../../core/spiffe/id.ts";
import { silentLog } from "../../io/log.ts";
import { unixAttestor } from "../attest/workload/unix/unix.ts";
import { type AgentOptions, type RunningAgent, startAgent } from "./agent.ts";
import { type FakeServer, TRUST_DOMAIN } from "./server-fixture.ts";

export interface TestFolder {
  readonly dir: string;
  remove(): void;
}

/** A folder whose path is short enough for sockets. */
export function testFolder(): TestFolder {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-"));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

/** An agent of `server` with its files in `dir`; where `bundlePem` is null, bundle.pem is there already. */
export function startTestAgent(
  server: Pick<FakeServer, "address" | "clock"> & { readonly bundlePem: string | null },
  dir: string,
  options: Partial<AgentOptions> = {},
): Promise<RunningAgent> {
  const trustBundle = join(dir, "bundle.pem");
  if (server.bundlePem !== null) {
    mkdirSync(dir, { recursive: true });
    writeFileSync(trustBundle, server.bundlePem);
  }
  return startAgent({
    trustDomain: TRUST_DOMAIN,
    servers: [server.address],
    dataDir: join(dir, "data"),
    cache: "disk",
    cacheKeyFile: join(dir, "key", "cache.key"),
    joinToken: "token-1",
    trustBundle,
    socket: join(dir, "agent.sock"),
    brokerSocket: join(dir, "broker.sock"),
    adminSocket: join(dir, "admin.sock"),
    brokers: [sidecarId(TRUST_DOMAIN)],
    attestors: [unixAttestor(() => server.clock.now())],
    clock: server.clock,
    random: () => 0.5,
    log: silentLog,
    ...options,
  });
}

/** Waits for `condition`, moving a fake clock on meanwhile where `step` is given. Fails after a minute of real time: a busy machine is no failure. */
export async function until(condition: () => boolean, what: string, step: () => void = () => {}): Promise<void> {
  const giveUpAt = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > giveUpAt) {
      throw new Error(`did not happen in time: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
    step();
  }
}
