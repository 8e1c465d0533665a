/** Network namespaces and links of an isolated mesh: one per service, one hub where they meet, one link to the host. */
import { readFile } from "node:fs/promises";
import { EveryhopError } from "../../../core/base/errors.ts";
import type { Plan } from "../plan.ts";
import type { RunJournal, RunRecord } from "../state.ts";
import { hostRules, hubRules, INTERFACE, serviceRules, UPLINK } from "./filter.ts";
import { runTool } from "./tools.ts";

/** Where a mesh's own network is taken from: 10.213.0.0/16, a /24 each. */
const FIRST_BYTES = "10.213";
const FIRST_SERVICE = 10;
const MAX_SERVICES = 240;

export interface Subnet {
  readonly cidr: string;
  readonly host: string;
  address(index: number): string;
}

export function subnet(third: number): Subnet {
  const base = `${FIRST_BYTES}.${third}`;
  return { cidr: `${base}.0/24`, host: `${base}.1`, address: (index) => `${base}.${FIRST_SERVICE + index}` };
}

/** A /24 that this machine has no route to. */
export async function freeSubnet(services: number, random: () => number = Math.random): Promise<Subnet> {
  if (services > MAX_SERVICES) {
    throw new EveryhopError("not-supported", `\`--isolate\` runs at most ${MAX_SERVICES} services, not ${services}`);
  }
  const routes = parseRoutes(await readFile("/proc/net/route", "utf8"));
  const start = Math.floor(random() * 256);
  for (let step = 0; step < 256; step++) {
    const third = (start + step) % 256;
    const wanted = ((10 << 24) | (213 << 16) | (third << 8)) >>> 0;
    if (!routes.some(({ network, mask }) => mask !== 0 && overlaps(network, mask, wanted, 0xffffff00))) {
      return subnet(third);
    }
  }
  throw new EveryhopError("resource-exhausted", `no free network in ${FIRST_BYTES}.0.0/16`, {
    hint: "end other isolated meshes with `everyhop down`",
  });
}

interface Route {
  readonly network: number;
  readonly mask: number;
}

/** Source: proc(5), /proc/net/route: little-endian hex. */
export function parseRoutes(text: string): Route[] {
  const number = (hex = "0"): number => Buffer.from(hex, "hex").readUInt32LE(0);
  return text
    .trim()
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .map(([, destination, , , , , , mask]) => ({ network: number(destination), mask: number(mask) }));
}

function overlaps(a: number, aMask: number, b: number, bMask: number): boolean {
  const mask = (aMask & bMask) >>> 0;
  return (a & mask) >>> 0 === (b & mask) >>> 0;
}

export const hubName = (run: string): string => `evh-${run}`;
/** At most 15 characters. */
export const linkName = (run: string): string => `evh${run}`;
export const tableName = (run: string): string => `everyhop_${run}`;

/** Makes everything of the plan; each name is in the journal before it is made. */
export async function makeNetworks(plan: Plan, network: Subnet, xdsPort: number, journal: RunJournal): Promise<void> {
  const hub = hubName(plan.run);
  const link = linkName(plan.run);
  const table = tableName(plan.run);
  journal.add("networkNamespaces", hub);
  journal.add("links", link);
  journal.add("nftTables", table);
  await ip("netns", "add", hub);
  await inside(hub, ["link add br0 type bridge", "link set dev br0 up", "link set dev lo up"]);
  await runTool("nft", ["-f", "-"], hostRules(table, link, xdsPort));
  await runTool("ip", ["netns", "exec", hub, "nft", "-f", "-"], hubRules(xdsPort));
  await ip("link", "add", "dev", link, "type", "veth", "peer", "name", UPLINK, "netns", hub);
  await ip("addr", "add", `${network.host}/24`, "dev", link);
  await ip("link", "set", "dev", link, "up");
  await inside(hub, [`link set dev ${UPLINK} master br0 up`]);
  await Promise.all(plan.services.map((_, index) => makeNamespace(plan, index, network, xdsPort, journal)));
}

async function makeNamespace(
  plan: Plan,
  index: number,
  network: Subnet,
  xdsPort: number,
  journal: RunJournal,
): Promise<void> {
  const service = plan.services[index];
  const place = service?.place;
  if (service === undefined || place == null) {
    return;
  }
  const { networkNamespace, address, sidecarUid } = place;
  const hub = hubName(plan.run);
  journal.add("networkNamespaces", networkNamespace);
  await ip("netns", "add", networkNamespace);
  // The rules are there before the link is: not one packet passes unfiltered.
  const rules = serviceRules({
    subnet: network.cidr,
    host: network.host,
    xdsPort,
    meshPort: service.service.port,
    sidecarUid,
  });
  await runTool("ip", ["netns", "exec", networkNamespace, "nft", "-f", "-"], rules);
  await runTool("ip", ["netns", "exec", networkNamespace, "sh", "-c", SETTINGS]);
  await inside(networkNamespace, [
    "link set dev lo up",
    `link add dev ${INTERFACE} type veth peer name port${index} netns ${hub}`,
    `addr add ${address}/24 dev ${INTERFACE}`,
    `link set dev ${INTERFACE} up`,
  ]);
  await inside(hub, [`link set dev port${index} master br0 up`]);
}

/** No IPv6 in the mesh's network; any port may be listened on: the namespace is the service's own. */
const SETTINGS = [
  "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do [ -e $f ] && echo 1 > $f; done",
  "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
].join("; ");

const ip = (...args: string[]): Promise<string> => runTool("ip", args);

/** Runs `ip` commands in a namespace, in one process. */
const inside = (namespace: string, commands: readonly string[]): Promise<string> =>
  runTool("ip", ["-n", namespace, "-batch", "-"], `${commands.join("\n")}\n`);

/** Removes the networks of a run; what is gone already is passed over. */
export async function removeNetworks({ networkNamespaces, links, nftTables }: RunRecord): Promise<void> {
  const quietly = (tool: string, args: readonly string[]): Promise<unknown> => runTool(tool, args).catch(() => {});
  if (networkNamespaces.length + links.length + nftTables.length === 0) {
    return;
  }
  await Promise.all(links.map((link) => quietly("ip", ["link", "del", "dev", link])));
  await Promise.all(networkNamespaces.map((name) => removeNamespace(name)));
  await Promise.all(nftTables.map((table) => quietly("nft", ["delete", "table", "inet", table])));
}

/** Whatever still runs in it is ended: a service may have started processes of any kind, but none leaves its namespace. */
async function removeNamespace(name: string): Promise<void> {
  const listed = await runTool("ip", ["netns", "pids", name]).catch(() => "");
  for (const pid of listed.split("\n").map(Number)) {
    if (pid > 1) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone already.
      }
    }
  }
  await runTool("ip", ["netns", "del", name]).catch(() => {});
}
