/**
 * The documents that are lists of what the code has: docs/errors.md, docs/cli.md, docs/metrics.md.
 * npm run docs writes them; `node tools/docs.ts --check` (in npm run check) compares.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cliDocument } from "./docs-cli.ts";
import { errorsDocument } from "./docs-errors.ts";
import { metricsDocument } from "./docs-metrics.ts";

const DOCUMENTS: Readonly<Record<string, () => string | Promise<string>>> = {
  "docs/errors.md": errorsDocument,
  "docs/cli.md": cliDocument,
  "docs/metrics.md": metricsDocument,
};

const GENERATED = "<!-- generated from the code by `npm run docs`; do not edit -->\n";

async function main(root: string, check: boolean): Promise<number> {
  let different = 0;
  for (const [file, make] of Object.entries(DOCUMENTS)) {
    const path = `${root}/${file}`;
    const text = `${GENERATED}${await make()}`;
    if (existsSync(path) && readFileSync(path, "utf8") === text) {
      continue;
    }
    different++;
    if (check) {
      console.error(`${file} is not what the code says: run \`npm run docs\` and commit it`);
    } else {
      writeFileSync(path, text);
      console.log(`wrote ${file}`);
    }
  }
  const count = Object.keys(DOCUMENTS).length;
  console.log(`documents: ${count} generated, ${different === 0 ? "all current" : `${different} changed`}`);
  return check && different > 0 ? 1 : 0;
}

if (import.meta.main) {
  process.exitCode = await main(process.cwd(), process.argv.includes("--check"));
}
