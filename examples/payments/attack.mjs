// printer is in an attacker's hands. This walks through what they would try next, from inside printer's own process, and
// prints what came of it. Exit code 1 if anything got through.
//
//   node examples/payments/attack.mjs [--dir DIR] [--json]
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");
const { values: options } = parseArgs({
  options: { dir: { type: "string", default: here }, json: { type: "boolean" } },
});

const mesh = readMesh(resolve(options.dir));
const { attempts, through } = await attack(mesh);
if (!options.json) {
  console.log(`\n${attempts} attempts, ${through === 0 ? "none got through" : `${through} GOT THROUGH`}`);
  if (!mesh.isolated) {
    console.log(
      "(On loopback nothing stops a local process from dialing a service's own port, or another one's outbound listener,",
    );
    console.log(" so that was not tried: `everyhop up --isolate` is the mode in which the kernel does.)");
  }
}
process.exit(attempts > 0 && through === 0 ? 0 : 1);

function readMesh(dir) {
  for (const file of [join(dir, ".everyhop", "mesh.json"), join(dir, "mesh.json")]) {
    try {
      return JSON.parse(readFileSync(file, "utf8"));
    } catch (error) {
      if (error.code !== "ENOENT") {
        console.error(`cannot read ${file}: ${error.message}`);
        process.exit(2);
      }
    }
  }
  console.error(`no mesh runs in ${dir}: start it with \`everyhop up ${dir}\``);
  process.exit(2);
}

async function attack(mesh) {
  let attempts = 0;
  let through = 0;
  await takeOver(mesh, await attackersKnowledge(mesh), (line) => {
    if (line.error !== undefined) {
      throw new Error(line.error);
    }
    if (line.note !== true) {
      attempts += 1;
      through += line.through ? 1 : 0;
    }
    const verdict = line.note ? "" : line.through ? "GOT THROUGH" : "refused";
    console.log(
      options.json ? JSON.stringify(line) : `${verdict.padEnd(11)}  ${line.attempt.padEnd(72)}  ${line.result}`,
    );
  });
  return { attempts, through };
}

/** Addresses, processes and files: an attacker is not stopped by not knowing them. */
async function attackersKnowledge({
  services,
  isolated,
  stateDir,
  trustDomain,
  adminSocket,
  agentSocket,
  admin,
  server,
}) {
  const { printer, ...rest } = services;
  const targets = Object.entries(rest).map(([name, { inbound, app }]) => ({
    name,
    protocol: name === "postgres-proxy" ? "tcp" : "http",
    inbound: address(inbound),
    outbound: address(printer.outbound[name]),
    appPort: address(app).port,
  }));
  const names = Object.keys(rest);
  const socketDir = dirname(agentSocket.replace("unix://", ""));
  return {
    targets,
    trustDomain,
    isolated,
    stateDir,
    cwd: here,
    pids: names.map((name) => ({ name, pid: services[name].pid })),
    commands: [
      ...names.map((name) => ({ name, command: ["node", `services/${name}.mjs`] })),
      {
        name: "the sidecar",
        command: [
          readlinkSync(`/proc/${mesh.supervisorPid}/exe`),
          join(root, "src/cli/main.ts"),
          "proxy",
          "--config",
          "none.yaml",
        ],
      },
    ],
    brokerSocket: join(dirname(socketDir), "broker", "broker.sock"),
    adminSockets: [adminSocket, join(stateDir, "agent", "admin.sock")],
    admin: admin.replace("http://", ""),
    server,
    hostAddresses: isolated ? [targets[0].inbound.host.replace(/\.\d+$/, ".1")] : [],
    expired: await expiredSvid(printer.spiffeId),
  };
}

function address(text) {
  const at = text.lastIndexOf(":");
  return { host: text.slice(0, at), port: Number(text.slice(at + 1)) };
}

/** An SVID of printer's that was good a moment ago, as one would find it in a backup. */
async function expiredSvid(spiffeId) {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-attack-"));
  try {
    const command = ["svid", "mint", "--dir", options.dir, "--spiffe-id", spiffeId, "--ttl", "2", "--out-dir", dir];
    execFileSync(join(root, "bin/everyhop.js"), command, { stdio: ["ignore", "ignore", "inherit"] });
    const svid = {
      cert: readFileSync(join(dir, "svid.0.pem"), "utf8"),
      key: readFileSync(join(dir, "svid.0.key"), "utf8"),
    };
    const ends = Date.parse(new X509Certificate(svid.cert).validTo);
    await new Promise((resolve) => setTimeout(resolve, ends + 1_500 - Date.now()));
    return svid;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** Hands the work to printer's own process, through the back door the attacker left in it. */
function takeOver({ stateDir }, input, onLine) {
  const folder = openSync(join(stateDir, "services", "printer"), "r");
  return new Promise((resolve, reject) => {
    const socket = connect(`/proc/self/fd/${folder}/backdoor.sock`);
    let rest = "";
    socket.on("error", reject);
    socket.on("data", (chunk) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      try {
        lines.filter((line) => line !== "").map((line) => onLine(JSON.parse(line)));
      } catch (error) {
        reject(error);
      }
    });
    socket.on("end", resolve);
    socket.end(JSON.stringify({ module: join(here, "attack", "run.mjs"), input }));
  }).finally(() => closeSync(folder));
}
