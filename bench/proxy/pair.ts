/** A pair of proxies between a client and a service, as the benchmark drives it. */
import { type ChildProcess, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { testCa, testKey, testLeaf } from "../../src/core/x509/fixture.ts";
import { encodeName } from "../../src/core/x509/name.ts";
import { pem } from "../../src/io/tls.ts";

export interface Pair {
  readonly name: string;
  /** Where the client connects, plaintext. */
  readonly address: string;
  /** The processes whose CPU time counts. */
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

export const CLIENT_ID = "spiffe://example.com/ns/bench/sa/client";
export const SERVER_ID = "spiffe://example.com/ns/bench/sa/server";

/** Certificates of both sides and the bundle, as files: `client.pem` and `server.pem` hold certificate and key. */
export function writeCertificates(folder: string): void {
  const now = Date.now();
  const period = { notBeforeMs: now - 60_000, notAfterMs: now + 3_600_000 };
  const ca = testCa("bench", period);
  writeFileSync(join(folder, "ca.pem"), pem("CERTIFICATE", ca.der));
  for (const [name, id] of [
    ["client", CLIENT_ID],
    ["server", SERVER_ID],
  ] as const) {
    const key = testKey();
    const leaf = testLeaf(ca, id, { ...period, subject: encodeName([{ type: "CN", value: name }]) }, key);
    const keyPem = pem("PRIVATE KEY", key.key.export({ format: "der", type: "pkcs8" }));
    writeFileSync(join(folder, `${name}.pem`), pem("CERTIFICATE", leaf) + keyPem, { mode: 0o600 });
    writeFileSync(join(folder, `${name}.crt`), pem("CERTIFICATE", leaf));
    writeFileSync(join(folder, `${name}.key`), keyPem, { mode: 0o600 });
  }
}

/** A port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

export function startProcess(command: string, args: readonly string[], env = process.env): ChildProcess {
  return spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], env });
}

/** Resolves once something listens at `address`; rejects with what the process said where it ends before. */
export async function untilListening(address: string, child: ChildProcess): Promise<void> {
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    said = `${said}${chunk.toString()}`.slice(-4_000);
  });
  const [host = "", port = ""] = address.split(":");
  for (let tries = 0; tries < 200; tries++) {
    if (child.exitCode !== null) {
      throw new Error(`\`${child.spawnfile}\` ended: ${said}`);
    }
    if (await reachable(host, Number(port))) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`\`${child.spawnfile}\` does not listen on ${address}: ${said}`);
}

function reachable(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

export async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 3_000);
    await ended;
    clearTimeout(timer);
  }
}
