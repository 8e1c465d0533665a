/** Runs the Biome of this platform: node tools/biome.ts ARGUMENTS… */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const binary = `node_modules/@biomejs/cli-${process.platform}-${process.arch}/biome`;

if (existsSync(binary)) {
  process.exitCode = spawnSync(binary, process.argv.slice(2), { stdio: "inherit" }).status ?? 1;
} else {
  console.error(
    `there is no Biome for ${process.platform} on ${process.arch} here: run \`npm ci\` with optional dependencies`,
  );
  process.exitCode = 2;
}
