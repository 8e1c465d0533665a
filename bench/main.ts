/**
 * npm run bench: measurements, each beside what it should be compared with in the same run.
 *
 *   npm run bench                    all of them
 *   npm run bench -- policy proxy    only these (folders of bench/)
 *   npm run bench -- --write         also writes bench/results.md
 *   npm run bench -- policy --svg docs/policy-speed.svg     also draws what policy measures
 *
 * A benchmark is a folder with a main.ts that prints its tables; `--quick` shortens what it can. One machine's figures: read the
 * ratios, and the medians rather than single runs.
 */
import { spawn } from "node:child_process";
import { existsSync, globSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { basename, dirname } from "node:path";
import { parseArgs } from "node:util";
import { type PeerName, peer } from "../test/peers.ts";

const PEERS: readonly PeerName[] = ["haproxy", "envoy", "h2load", "wrk"];

/** What the figures were measured on. */
function machine(): string {
  const memory = `${Math.round(totalmem() / 2 ** 30)} GB`;
  const busy = loadavg()[0]?.toFixed(1);
  const here = PEERS.filter((name) => peer(name) !== null);
  const missing = PEERS.filter((name) => peer(name) === null);
  return [
    `Node ${process.versions.node}, OpenSSL ${process.versions.openssl}, Linux ${release()}`,
    `${availableParallelism()} of ${cpus().length} processors (${cpus()[0]?.model ?? "unknown"}), ${memory}, load ${busy} at the start`,
    `peers here: ${here.join(", ") || "none"}${missing.length === 0 ? "" : `; not here: ${missing.join(", ")} (tools/peers)`}`,
  ].join("\n");
}

function runBenchmark(folder: string, args: readonly string[]): Promise<{ ok: boolean; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [`${folder}/main.ts`, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      process.stdout.write(chunk);
      output += chunk.toString();
    });
    child.on("close", (code) => resolve({ ok: code === 0, output }));
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.once(signal, () => child.kill(signal));
    }
  });
}

async function main(args: readonly string[]): Promise<number> {
  const all = globSync("bench/*/main.ts").map(dirname).sort();
  const { values: options, positionals: wanted } = parseArgs({
    args: [...args],
    options: { quick: { type: "boolean" }, write: { type: "boolean" }, svg: { type: "string" } },
    allowPositionals: true,
  });
  const unknown = wanted.find((name) => !existsSync(`bench/${name}/main.ts`));
  if (unknown !== undefined) {
    console.error(`no benchmark \`${unknown}\`: there are ${all.map((folder) => basename(folder)).join(", ")}`);
    return 2;
  }
  const head = machine();
  console.log(`${head}\n`);
  const sections = [`# Results\n\nWritten by \`npm run bench -- --write\`. ${head.replaceAll("\n", "; ")}.`];
  const passed = (folder: string): string[] => [
    ...(options.quick ? ["--quick"] : []),
    ...(options.svg !== undefined && folder === "bench/policy" ? [`--svg=${options.svg}`] : []),
  ];
  let failed = false;
  for (const folder of wanted.length === 0 ? all : wanted.map((name) => `bench/${name}`)) {
    console.log(`== ${basename(folder)}`);
    const { ok, output } = await runBenchmark(folder, passed(folder));
    failed ||= !ok;
    sections.push(`## ${basename(folder)}\n\n\`\`\`\n${output.trimEnd()}\n\`\`\``);
  }
  if (options.write) {
    writeFileSync("bench/results.md", `${sections.join("\n\n")}\n`);
    console.log("wrote bench/results.md");
  }
  return failed ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2)).catch((cause: Error & { code?: string }) => {
  if (cause.code?.startsWith("ERR_PARSE_ARGS") !== true) {
    throw cause;
  }
  console.error(cause.message);
  return 2;
});
