// Attempts to become somebody else at the agent.
import { spawn } from "node:child_process";
import { connect } from "node:net";
import { askBroker } from "./workload-api.mjs";

const OTHERS = /\/(payment-service|api-gateway|user-service|postgres-proxy|sidecar)$/;

/** printer starts other services' own commands, which ask for an identity before their first line runs. */
export async function* impersonate(commands, cwd) {
  for (const { name, command } of commands) {
    const ids = await idsOf(command, cwd);
    const through = ids.some((id) => OTHERS.test(id));
    yield {
      attempt: `run ${name}'s own command and ask for its SVID`,
      through,
      result: ids.join(", ") || "no identity issued",
    };
  }
}

/** Which identities a process gets that runs `command` (Node does first what NODE_OPTIONS says, whatever the command is). */
function idsOf([file, ...args], cwd) {
  const preload = new URL("./preload.mjs", import.meta.url);
  return new Promise((resolve) => {
    const child = spawn(file === "node" ? process.execPath : file, args, {
      cwd,
      env: { ...process.env, NODE_OPTIONS: `--import=${preload}` },
      stdio: ["ignore", "pipe", "ignore"],
    });
    let text = "";
    child.stdout.on("data", (chunk) => {
      text += chunk;
    });
    const limit = setTimeout(() => child.kill("SIGKILL"), 8_000);
    child.on("error", () => resolve([]));
    child.on("close", () => {
      clearTimeout(limit);
      resolve([...text.matchAll(/^ID (\S+)$/gm)].map(([, id]) => id));
    });
  });
}

/** The agent's endpoint for sidecars, and its and the server's own administration. */
export async function* agentDoors({ brokerSocket, adminSockets, isolated }, own, pids) {
  for (const [how, identity] of [
    ["with printer's SVID", own],
    ["without a certificate", null],
  ]) {
    for (const { name, pid } of pids) {
      yield await refusal(`the broker ${how}: ${name}'s SVID`, async () => {
        const svids = await askBroker(brokerSocket, identity, pid);
        return svids.map(({ id }) => id).join(", ");
      });
    }
  }
  yield await refusal("the Workload API without its security header", () => rawRequest());
  // On loopback all processes are one user's, and who is the mesh's owner may administer it.
  for (const socket of isolated ? adminSockets : []) {
    yield await refusal(`the admin socket ${socket}`, () => opens(socket));
  }
}

async function refusal(attempt, action) {
  try {
    const result = await action();
    return { attempt, through: result !== "", result: result || "nothing" };
  } catch (error) {
    return { attempt, through: false, result: error.message.slice(0, 80) };
  }
}

/** A call as a confused proxy would pass it on: without metadata. */
async function rawRequest() {
  const { createRequire } = await import("node:module");
  const { Client, credentials } = createRequire(import.meta.url)("@grpc/grpc-js");
  const client = new Client(
    process.env.SPIFFE_ENDPOINT_SOCKET.replace("unix://", "unix:"),
    credentials.createInsecure(),
  );
  const pass = (bytes) => bytes;
  try {
    return await new Promise((resolve, reject) => {
      const call = client.makeServerStreamRequest("/SpiffeWorkloadAPI/FetchX509SVID", pass, pass, Buffer.alloc(0), {
        deadline: Date.now() + 3_000,
      });
      call.once("data", (data) => resolve(`${data.length} bytes`));
      call.once("error", (error) => reject(new Error(error.details || error.message)));
      call.once("end", () => resolve(""));
    });
  } finally {
    client.close();
  }
}

function opens(path) {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve("it opened");
    });
    socket.once("error", (error) => reject(new Error(error.code)));
  });
}
