/** Sizes: a file of more than 400 lines wants a thought, of more than 800 fails; so does a function of more than 120. */
import { globSync, readFileSync } from "node:fs";
import { functionsOf, mask } from "./scan.ts";

export const LIMITS = { thoughtLines: 400, fileLines: 800, functionLines: 120 } as const;

export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly severity: "error" | "warning";
  readonly message: string;
}

/** What is too big in one file's text. */
export function checkSizes(file: string, text: string): Finding[] {
  const findings: Finding[] = [];
  const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
  if (lines > LIMITS.fileLines) {
    const message = `${lines} lines, more than ${LIMITS.fileLines}: it is more than one thing`;
    findings.push({ file, line: 1, severity: "error", message });
  } else if (lines > LIMITS.thoughtLines) {
    findings.push({ file, line: 1, severity: "warning", message: `${lines} lines: is it still one thing?` });
  }
  for (const span of functionsOf(text, mask(text))) {
    if (span.lines > LIMITS.functionLines) {
      const name = span.name === "" ? "a function" : `\`${span.name}\``;
      const message = `${name} has ${span.lines} lines, more than ${LIMITS.functionLines}`;
      findings.push({ file, line: span.line, severity: "error", message });
    }
  }
  return findings;
}

function main(root: string): number {
  const start = performance.now();
  const files = ["src", "web", "test", "tools", "bench", "examples"]
    .flatMap((folder) => globSync(`${folder}/**/*.{ts,tsx,js,mjs}`, { cwd: root }))
    .filter((file) => !file.startsWith("src/gen/") && !file.includes("node_modules/"))
    .sort();
  const findings = files.flatMap((file) => checkSizes(file, readFileSync(`${root}/${file}`, "utf8")));
  for (const { file, line, severity, message } of findings) {
    console.error(`${file}:${line}: ${severity}: ${message}`);
  }
  const errors = findings.filter((finding) => finding.severity === "error").length;
  const ms = Math.round(performance.now() - start);
  console.log(`sizes: ${files.length} files, ${errors} too big, ${findings.length - errors} to think about (${ms} ms)`);
  return errors === 0 ? 0 : 1;
}

if (import.meta.main) {
  process.exitCode = main(process.cwd());
}
