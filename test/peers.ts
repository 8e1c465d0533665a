/**
 * Real peers that suites run against: where each is on this machine, or that it is not here. A suite without its peer
 * skips by name, `t.skip("needs promtool")`; test/skips.json says which suites may.
 *
 *   test("the guide's alerts load", (t) => {
 *     if (skipWithout(t, "promtool")) return;
 *     execFileSync(peer("promtool")!, ["check", "rules", file]);
 *   });
 *
 * tools/peers installs what a machine can have and writes .peers/env (NAME=path); a variable of the environment wins.
 */
import { execFileSync } from "node:child_process";
import { accessSync, constants, globSync, mkdirSync, readFileSync, rmdirSync, statSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import type { TestContext } from "node:test";

const ROOT = dirname(import.meta.dirname);

interface Peer {
  /** Environment variable, also in .peers/env, that names the file. */
  readonly variable?: string;
  /** Names to look for on PATH and in /usr/sbin and /sbin. */
  readonly commands?: readonly string[];
  /** Where else it may lie; the last match is taken. */
  readonly glob?: string;
  /** What cannot be named by a file. */
  readonly probe?: () => string | null;
}

const PEERS = {
  envoy: { variable: "ENVOY", commands: ["envoy"] },
  haproxy: { variable: "HAPROXY", commands: ["haproxy"] },
  prometheus: { variable: "PROMETHEUS", commands: ["prometheus"] },
  promtool: { variable: "PROMTOOL", commands: ["promtool"] },
  postgres: { variable: "POSTGRES", commands: ["postgres"], glob: "/usr/lib/postgresql/*/bin/postgres" },
  psql: { commands: ["psql"], glob: "/usr/lib/postgresql/*/bin/psql" },
  curl: { commands: ["curl"] },
  openssl: { commands: ["openssl"] },
  "ssh-keygen": { commands: ["ssh-keygen"] },
  wrk: { commands: ["wrk"] },
  h2load: { commands: ["h2load"] },
  /** SoftHSM's PKCS#11 library; its tool `softhsm2-util` is on PATH. */
  softhsm: { probe: findSoftHsm },
  nft: { commands: ["nft"] },
  ip: { commands: ["ip"] },
  setpriv: { commands: ["setpriv"] },
  nsenter: { commands: ["nsenter"] },
  go: { commands: ["go"], glob: "/usr/local/go/bin/go" },
  /** The client of tools/peers.go/, built on go-spiffe. */
  "go-spiffe": { variable: "GO_SPIFFE_CLIENT" },
  /** The clients of tools/peers-python and tools/peers-rust, built on the packages `spiffe` of PyPI and crates.io. */
  "spiffe-python": { variable: "SPIFFE_PYTHON_CLIENT" },
  "spiffe-rust": { variable: "SPIFFE_RUST_CLIENT" },
  "spire-agent": { variable: "SPIRE_AGENT", commands: ["spire-agent"] },
  "spire-server": { variable: "SPIRE_SERVER", commands: ["spire-server"] },
  /** The folder of third-party vectors beside the project. */
  conformance: { probe: findConformance },
  root: { probe: () => (process.getuid?.() === 0 ? "/" : null) },
  /** This checkout lies where every user of the machine may read it. */
  "open-checkout": { probe: probeOpenCheckout },
  /** Root that may make network namespaces and load nftables rules in them. */
  netns: { probe: probeNamespaces },
  /** `unshare`, as root that may make PID namespaces and choose the next pid in them. */
  "pid-namespaces": { probe: probePidNamespaces },
  /** The root of version 2's control groups, in which root may make some. */
  cgroups: { probe: probeCgroups },
} as const satisfies Record<string, Peer>;

export type PeerName = keyof typeof PEERS;

const found = new Map<PeerName, string | null>();

/** The path of a peer's program (or folder), or null where this machine does not have it. */
export function peer(name: PeerName): string | null {
  const known = found.get(name);
  if (known !== undefined) {
    return known;
  }
  const path = find(PEERS[name]);
  found.set(name, path);
  return path;
}

/** The reason to skip, for `test(name, { skip: without("envoy") }, …)`: false where all are here. */
export function without(...names: readonly PeerName[]): string | false {
  const missing = names.filter((name) => peer(name) === null);
  return missing.length === 0 ? false : `needs ${missing.join(", ")}`;
}

/** Skips the running test, by name, where a peer is missing; says whether it did. */
export function skipWithout(t: TestContext, ...names: readonly PeerName[]): boolean {
  const reason = without(...names);
  if (reason !== false) {
    t.skip(reason);
  }
  return reason !== false;
}

function find({ variable, commands = [], glob, probe }: Peer): string | null {
  if (probe !== undefined) {
    return probe();
  }
  const named = variable === undefined ? undefined : (process.env[variable] ?? recorded().get(variable));
  if (named !== undefined && named !== "") {
    return executable(named) ? named : null;
  }
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  const candidates = commands.flatMap((command) => folders.map((folder) => join(folder, command)));
  const lying = glob === undefined ? undefined : globSync(glob).sort().at(-1);
  return candidates.find(executable) ?? (lying !== undefined && executable(lying) ? lying : null);
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What tools/peers wrote: NAME=path lines. */
function recorded(): ReadonlyMap<string, string> {
  try {
    const text = readFileSync(join(ROOT, ".peers/env"), "utf8");
    return new Map([...text.matchAll(/^(\w+)=(.+)$/gm)].map((match) => [match[1] as string, match[2] as string]));
  } catch {
    return new Map();
  }
}

function findConformance(): string | null {
  for (let folder = ROOT; folder !== dirname(folder); folder = dirname(folder)) {
    const candidate = join(folder, "shared/conformance");
    if (executable(candidate)) {
      return candidate;
    }
  }
  return null;
}

function findSoftHsm(): string | null {
  const library = globSync("/usr/lib/{softhsm,*/softhsm}/libsofthsm2.so").sort().at(-1) ?? null;
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.some((folder) => executable(join(folder, "softhsm2-util"))) ? library : null;
}

function probeOpenCheckout(): string | null {
  for (let folder = ROOT; folder !== dirname(folder); folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o005) !== 0o005) {
      return null;
    }
  }
  return ROOT;
}

function probeNamespaces(): string | null {
  const tools = ["nft", "ip", "setpriv", "nsenter"] as const;
  if (process.getuid?.() !== 0 || tools.some((tool) => peer(tool) === null)) {
    return null;
  }
  try {
    execFileSync("unshare", ["--net", peer("nft") as string, "list", "ruleset"], { stdio: "ignore", timeout: 10_000 });
    return "/proc/self/ns/net";
  } catch {
    return null;
  }
}

function probePidNamespaces(): string | null {
  const script = "echo 300 > /proc/sys/kernel/ns_last_pid";
  try {
    execFileSync("unshare", ["--pid", "--fork", "--mount-proc", "sh", "-c", script], { stdio: "ignore" });
    return "unshare";
  } catch {
    return null;
  }
}

function probeCgroups(): string | null {
  for (const root of ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]) {
    const probe = join(root, `everyhop-probe-${process.pid}`);
    try {
      accessSync(join(root, "cgroup.controllers"));
      mkdirSync(probe);
      rmdirSync(probe);
      return root;
    } catch {
      // Version 1, or read-only: the next one.
    }
  }
  return null;
}
