/** For tests: a PostgreSQL of one's own, in a folder that goes with it, on a unix socket. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { Client } from "pg";
import { peer } from "../peers.ts";

export interface Cluster {
  /** A connection string for a database that is made new. */
  database(): Promise<string>;
  /** Runs SQL as the cluster's owner, on a database of its own or the one of `connection`. */
  run(sql: string, connection?: string): Promise<Record<string, unknown>[]>;
  /** Ends it as a crash does: no connection survives, what was committed does. */
  crash(): Promise<void>;
  /** Starts it again in the same folder. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** It refuses to run as root: then it runs as the first user who is not. */
const ORDINARY = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};

/** Makes a file in the folder of a cluster that only its own user may read, as it asks for its key. */
function ownerOnlyFile(path: string, text: string): void {
  writeFileSync(path, text, { mode: 0o600 });
  if (ORDINARY.uid !== undefined) {
    chownSync(path, ORDINARY.uid, ORDINARY.gid);
  }
}

/** The settings for TLS on this port of loopback, with this certificate and key (PEM). */
export function tlsSettings(dir: string, port: number, certificate: string, key: string): readonly string[] {
  const files = { certificate: join(dir, "server.pem"), key: join(dir, "server.key") };
  ownerOnlyFile(files.certificate, certificate);
  ownerOnlyFile(files.key, key);
  const addresses = ["listen_addresses=127.0.0.1", `port=${port}`];
  return [...addresses, "ssl=on", `ssl_cert_file=${files.certificate}`, `ssl_key_file=${files.key}`];
}

/** INVARIANT: needs the peer `postgres`: who calls this has asked for it. */
export async function startCluster(settingsOf: (dir: string) => readonly string[] = () => []): Promise<Cluster> {
  const bin = dirname(peer("postgres") ?? "");
  const dir = mkdtempSync(join(tmpdir(), "everyhop-pg-"));
  if (ORDINARY.uid !== undefined) {
    chownSync(dir, ORDINARY.uid, ORDINARY.gid);
  }
  const data = join(dir, "data");
  const init = ["-D", data, "-A", "trust", "-U", "owner", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"];
  await promisify(execFile)(join(bin, "initdb"), init, { ...ORDINARY, cwd: dir });
  const more = settingsOf(dir);
  const port = more.find((setting) => setting.startsWith("port="))?.slice("port=".length) ?? "5432";
  let server: ChildProcess | null = null;
  const start = async (): Promise<void> => {
    const settings = ["fsync=off", "shared_buffers=16MB", "max_connections=100", "listen_addresses=", ...more];
    const args = ["-D", data, "-k", dir, ...settings.flatMap((setting) => ["-c", setting])];
    server = spawn(join(bin, "postgres"), args, { ...ORDINARY, cwd: dir, stdio: ["ignore", "ignore", "pipe"] });
    await ready(server);
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const running = server;
    if (running !== null && running.exitCode === null && running.signalCode === null) {
      const gone = new Promise((resolve) => running.once("close", resolve));
      running.kill(signal);
      await gone;
    }
    server = null;
  };
  const run: Cluster["run"] = async (sql, connection = `postgres://owner@/postgres?host=${dir}&port=${port}`) => {
    const client = new Client({ connectionString: connection });
    await client.connect();
    try {
      return (await client.query(sql)).rows ?? [];
    } finally {
      await client.end();
    }
  };
  let databases = 0;
  await start();
  return {
    run,
    start,
    async database() {
      const name = `test${++databases}`;
      await run(`create database ${name}`);
      return `postgres://owner@/${name}?host=${dir}&port=${port}`;
    },
    // SPEC: PostgreSQL, Shutting Down: SIGQUIT is the immediate shutdown, which recovers at the next start.
    crash: () => end("SIGQUIT"),
    async stop() {
      await end("SIGQUIT");
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

function ready(server: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = "";
    server.stderr?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (/ready to accept connections/.test(text)) {
        resolve();
      }
    });
    server.once("error", reject);
    server.once("close", () => reject(new Error(`postgres ended: ${text}`)));
  });
}
