/**
 * Envoy's RBAC filter, which Istio's sidecars decide with, in a real Envoy of one worker: processor time of a request through `count`
 * policies less that of one through none, both answered by Envoy itself. The caller is a header there, since the load has no certificate.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { peer, without } from "../../test/peers.ts";
import { cpuMs, median } from "../measure.ts";
import { endProcess, startProcess } from "../proxy/pair.ts";
import { type Budget, CALLER, type Engine, METHOD, path, times } from "./engine.ts";

const TYPE = "type.googleapis.com/envoy.extensions.filters";
const START_LIMIT_MS = 60_000;
const LOAD_LIMIT_MS = 30_000;
const CONNECTIONS = 4;

function rbac(count: number): object {
  // Envoy walks its policies in the order of their names.
  const name = (index: number): string => `rule-${String(index).padStart(9, "0")}`;
  const rule = (index: number): object => ({
    permissions: [
      {
        and_rules: {
          rules: [
            { header: { name: ":method", string_match: { exact: METHOD } } },
            { url_path: { path: { exact: path(index) } } },
          ],
        },
      },
    ],
    principals: [{ header: { name: "x-caller", string_match: { exact: CALLER } } }],
  });
  const policies = Object.fromEntries(times(count, (index) => [name(index), rule(index)]));
  return {
    name: "envoy.filters.http.rbac",
    typed_config: { "@type": `${TYPE}.http.rbac.v3.RBAC`, rules: { action: "ALLOW", policies } },
  };
}

function listener(name: string, filters: readonly object[]): object {
  const route = { match: { prefix: "/" }, direct_response: { status: 200, body: { inline_string: "ok" } } };
  const manager = {
    "@type": `${TYPE}.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: name,
    route_config: { virtual_hosts: [{ name: "all", domains: ["*"], routes: [route] }] },
    http_filters: [
      ...filters,
      { name: "envoy.filters.http.router", typed_config: { "@type": `${TYPE}.http.router.v3.Router` } },
    ],
  };
  return {
    name,
    address: { socket_address: { address: "127.0.0.1", port_value: 0 } },
    filter_chains: [{ filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }] }],
  };
}

interface Running {
  readonly child: ChildProcess;
  /** Where requests pass no policy, and where they pass all. */
  readonly none: string;
  readonly all: string;
}

async function untilReady(child: ChildProcess, addressFile: string): Promise<string> {
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    said = `${said}${chunk.toString()}`.slice(-4_000);
  });
  for (const until = Date.now() + START_LIMIT_MS; Date.now() < until; await after(50)) {
    if (child.exitCode !== null || child.signalCode !== null) {
      break;
    }
    const admin = existsSync(addressFile) ? `http://${readFileSync(addressFile, "utf8").trim()}` : null;
    if (admin !== null && (await got(`${admin}/ready`))?.status === 200) {
      return admin;
    }
  }
  throw new Error(`Envoy is not ready: ${said}`);
}

const got = (url: string, headers: Record<string, string> = {}): Promise<Response | null> =>
  fetch(url, { headers, signal: AbortSignal.timeout(5_000) }).catch(() => null);

let started = 0;

async function start(folder: string, count: number): Promise<Running> {
  const [config, addressFile] = [join(folder, "envoy.json"), join(folder, "envoy-admin")];
  rmSync(addressFile, { force: true });
  const bootstrap = {
    admin: { address: { socket_address: { address: "127.0.0.1", port_value: 0 } } },
    static_resources: { listeners: [listener("none", []), listener("all", [rbac(count)])] },
  };
  writeFileSync(config, JSON.stringify(bootstrap));
  const id = 50_000 + (process.pid % 10_000) * 8 + (started++ % 8);
  const args = ["-c", config, "--concurrency", "1", "--base-id", String(id), "--log-level", "error"];
  const child = startProcess(peer("envoy") as string, [...args, "--admin-address-path", addressFile]);
  const kill = (): unknown => child.kill("SIGKILL");
  process.once("exit", kill);
  child.once("exit", () => process.off("exit", kill));
  try {
    const admin = await untilReady(child, addressFile);
    const listed = (await (await got(`${admin}/listeners?format=json`))?.json()) as {
      listener_statuses: { name: string; local_address: { socket_address: { port_value: number } } }[];
    };
    const at = (name: string): string => {
      const found = listed.listener_statuses.find((each) => each.name === name);
      return `http://127.0.0.1:${found?.local_address.socket_address.port_value}`;
    };
    return { child, none: at("none"), all: at("all") };
  } catch (cause) {
    await endProcess(child);
    throw cause;
  }
}

/** Sends so many requests and waits for as many 200s. */
function load(url: string, requests: number): Promise<void> {
  const args = ["--h1", "-t", "1", "-c", String(CONNECTIONS), "-n", String(requests), "-H", `x-caller: ${CALLER}`, url];
  return new Promise((resolve, reject) => {
    const child = spawn(peer("h2load") as string, args, { stdio: ["ignore", "pipe", "pipe"], timeout: LOAD_LIMIT_MS });
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
    child.on("error", reject);
    child.on("close", () =>
      said.includes(`status codes: ${requests} 2xx`) ? resolve() : reject(new Error(`h2load: ${said}`)),
    );
  });
}

/** A load that keeps Envoy busy for about a round: how many requests that takes is found on the way. */
async function calibrated(pid: number, url: string, roundMs: number): Promise<() => Promise<number>> {
  let requests = 40;
  const once = async (): Promise<number> => {
    const before = cpuMs(pid);
    await load(url, requests);
    return cpuMs(pid) - before;
  };
  for (let used = await once(); used < roundMs / 2; used = await once()) {
    requests = Math.ceil(requests * Math.min(20, Math.max(2, roundMs / Math.max(used, 1))));
  }
  return async () => ((await once()) * 1e6) / requests;
}

/** Round by round, so that both sides see the same machine. NaN: less than can be told from none. */
async function difference({ child, none, all }: Running, asked: string, budget: Budget): Promise<number> {
  const pid = child.pid as number;
  const bare = await calibrated(pid, none + asked, budget.roundMs);
  const ruled = await calibrated(pid, all + asked, budget.roundMs);
  const more: number[] = [];
  for (let round = 0; round < budget.rounds; round++) {
    const without = await bare();
    more.push((await ruled()) - without);
  }
  const found = median(more);
  return found > 0 ? found : Number.NaN;
}

export function envoyEngine(budget: Budget, folder: string): Engine {
  return {
    name: "Envoy's RBAC filter",
    missing: without("envoy", "h2load") || null,
    async measure(count) {
      const running = await start(folder, count);
      try {
        if ((await got(`${running.all}/nothing`, { "x-caller": CALLER }))?.status !== 403) {
          throw new Error("Envoy does not answer what is measured");
        }
        return await difference(running, path(count - 1), budget);
      } finally {
        await endProcess(running.child);
      }
    },
  };
}
