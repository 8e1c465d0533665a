// With --isolate: attempts on the machine itself, around the sidecars and past the walls between services.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from "node:fs";
import { createServer } from "node:net";
import { dial, httpRequest, judge } from "./dial.mjs";

export async function* aroundTheSidecar(targets, { hostAddresses, admin, server }) {
  for (const target of targets) {
    const { host } = target.inbound;
    for (const port of [target.appPort, 15001, 15020]) {
      const answer = await dial({ target: { host, port }, chunks: [httpRequest({ path: "/metrics" })] });
      // What comes back is a sidecar's word: ours took the connection.
      yield { attempt: `${target.name} at port ${port}, directly`, ...judge("http", answer) };
    }
    yield await datagram(host, target.name);
  }
  const doors = [
    ...hostAddresses.flatMap((host) => [`${host}:22`, `${host}:80`]),
    admin,
    server,
    "1.1.1.1:443",
    "[::1]:80",
  ];
  for (const door of new Set(doors)) {
    const at = door.lastIndexOf(":");
    const target = { host: door.slice(0, at).replace(/[[\]]/g, ""), port: Number(door.slice(at + 1)) };
    const answer = await dial({ target, chunks: [httpRequest({})] });
    yield { attempt: `out of the mesh: ${door}`, through: answer.bytes.length > 0, result: answer.error ?? "answered" };
  }
}

function datagram(host, name) {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    const end = (through, result) => {
      socket.close();
      resolve({ attempt: `UDP to ${name}`, through, result });
    };
    socket.on("error", (error) => end(false, error.code));
    socket.send("x", 53, host, (error) => end(error === null, error === null ? "sent" : error.code));
  });
}

/** Files, memory and signals of the others. */
export function* others(pids, stateDir) {
  for (const { name, pid } of pids) {
    for (const file of ["environ", "mem", "maps", "fd", "root", "cwd"]) {
      yield attempt(`/proc/${pid}/${file} of ${name}`, () => look(`/proc/${pid}/${file}`));
    }
    yield attempt(`a signal to ${name}`, () => process.kill(pid, 0) && "it could be sent");
  }
  for (const path of ["server", "agent", "sidecars", "logs", "mesh.json", "places.json", ...folders(pids)]) {
    yield attempt(`the mesh's ${path}`, () => look(`${stateDir}/${path}`));
  }
}

const folders = (pids) => pids.map(({ name }) => `services/${name}`);

function look(path) {
  try {
    return `${readdirSync(path).length} entries`;
  } catch (error) {
    if (error.code !== "ENOTDIR") {
      throw error;
    }
  }
  const fd = openSync(path, "r");
  try {
    return `${readSync(fd, Buffer.alloc(64), 0, 64, path.endsWith("mem") ? 4096 : 0)} bytes`;
  } finally {
    closeSync(fd);
  }
}

function attempt(text, action) {
  try {
    return { attempt: text, through: true, result: String(action()) };
  } catch (error) {
    return { attempt: text, through: false, result: error.code ?? error.message };
  }
}

/** Our own cage: its rules, its namespaces, its user. */
export async function* cage(pids) {
  const capabilities = /CapBnd:\s*(\S+)/.exec(readFileSync("/proc/self/status", "utf8"))[1];
  yield { attempt: "capabilities, now or ever", through: !/^0+$/.test(capabilities), result: capabilities };
  const tools = [
    ["flush the firewall", "nft", ["flush", "ruleset"]],
    ["read the firewall", "nft", ["list", "ruleset"]],
    ["move to the first namespace", "nsenter", ["-t", "1", "-n", "true"]],
    ["move to another service's namespace", "nsenter", ["-t", String(pids[0]?.pid ?? 1), "-n", "true"]],
    ["become root", "setpriv", ["--reuid", "0", "true"]],
    ["add an address", "ip", ["addr", "add", "10.213.255.1/32", "dev", "lo"]],
    ["a user namespace with the network's rights", "unshare", ["--map-root-user", "nft", "flush", "ruleset"]],
    ["mount over the state folder", "mount", ["-t", "tmpfs", "tmpfs", "/mnt"]],
  ];
  for (const [text, tool, args] of tools) {
    yield { attempt: text, ...(await runs(tool, args)) };
  }
  yield await listens(15006);
  yield attempt("who is in this namespace but us", () => {
    const own = readlinkSync("/proc/self/ns/net");
    const seen = pids.filter(({ pid }) => readlinkSync(`/proc/${pid}/ns/net`) === own);
    return seen.map(({ name }) => name).join(", ");
  });
}

function runs(tool, args) {
  return new Promise((resolve) => {
    const path = `${process.env.PATH}:/usr/sbin:/sbin`;
    execFile(tool, args, { timeout: 5_000, env: { ...process.env, PATH: path } }, (error, _out, stderr) =>
      resolve({
        through: error === null,
        result: error === null ? "it worked" : (stderr.trim().split("\n")[0] ?? "").slice(0, 80),
      }),
    );
  });
}

/** Sitting where the sidecar listens, callers would come to us. */
function listens(port) {
  return new Promise((resolve) => {
    const server = createServer();
    const say = (through, result) => resolve({ attempt: `listen on the sidecar's port ${port}`, through, result });
    server.once("error", (error) => say(false, error.code));
    server.listen(port, "0.0.0.0", () => server.close(() => say(true, "it is ours")));
  });
}
