/** OPA as a Go program embeds it: a prepared query over rules that its index can find. Built from tools/peers-opa where Go is. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { peer } from "../../test/peers.ts";
import { type Budget, CALLER, type Engine, METHOD, path, times } from "./engine.ts";

const ROOT = join(import.meta.dirname, "../..");
const BUILD_LIMIT_MS = 240_000;

/** Go's own cache makes a second build short. Its output shows why a build failed; the comparison goes on without OPA. */
function build(): string | null {
  const go = peer("go");
  if (go === null) {
    return null;
  }
  const program = join(ROOT, ".peers/bin/opa-decide");
  mkdirSync(join(ROOT, ".peers/bin"), { recursive: true });
  const args = ["-C", join(ROOT, "tools/peers-opa"), "build", "-buildvcs=false", "-o", program, "."];
  try {
    execFileSync(go, args, {
      stdio: ["ignore", "ignore", "inherit"],
      timeout: BUILD_LIMIT_MS,
      env: { ...process.env, GOTOOLCHAIN: "local" },
    });
    return program;
  } catch {
    return null;
  }
}

const rule = (index: number): string =>
  `allow if { input.principal == ${JSON.stringify(CALLER)}; input.method == "${METHOD}"; input.path == ${JSON.stringify(path(index))} }`;

export function opaEngine(budget: Budget, folder: string): Engine {
  const program = build();
  return {
    name: "OPA (Go library)",
    missing: program === null ? "Go that can build tools/peers-opa" : null,
    measure(count) {
      const module = join(folder, "rules.rego");
      writeFileSync(module, ["package authz", "default allow := false", ...times(count, rule)].join("\n"));
      const input = { principal: CALLER, method: METHOD, path: path(count - 1) };
      const args = [module, JSON.stringify(input), String(budget.rounds), String(budget.roundMs)];
      const said = execFileSync(program ?? "", args, { encoding: "utf8", timeout: 120_000 });
      return Number(said);
    },
  };
}
