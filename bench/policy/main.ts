/**
 * What a decision costs, in processor time. First every engine that is here, asked the same: 1 to 10,000 rules that select the workload,
 * and a request that only the last of them allows. Then ours alone: what is allowed, what no rule matches, what a DENY policy denies;
 * one policy with as many values in one field; beside it what a hand-written function of one rule costs: the floor.
 *
 *   npm run bench -- policy --svg docs/policy-speed.svg     also draws the comparison
 *
 * Envoy and h2load are installed by tools/peers, Cedar by npm, OPA is built where Go is (its modules are fetched the first time).
 * What is not here is left out by name.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { HttpFacts, PeerFacts } from "../../src/core/policy/evaluate.ts";
import { table } from "../measure.ts";
import { cedarEngine } from "./cedar.ts";
import { type Budget, cost, type Engine, text, times } from "./engine.ts";
import { envoyEngine } from "./envoy.ts";
import { opaEngine } from "./opa.ts";
import { caller, type Measured, measure, ourEngine, policy, request, resourcesOf } from "./ours.ts";
import { type Line, picture } from "./picture.ts";

const { quick, svg } = parseArgs({ options: { quick: { type: "boolean" }, svg: { type: "string" } } }).values;
const BUDGET: Budget = quick ? { rounds: 3, roundMs: 40 } : { rounds: 5, roundMs: 300 };
/** A process's time is counted in hundredths of a second. */
const ENVOY_BUDGET: Budget = quick ? { rounds: 3, roundMs: 400 } : { rounds: 5, roundMs: 700 };

/** The kernel tells a thread's time by its own clock. */
const TICK_MS = 4;
const milliseconds = (ms: number): string => (ms < TICK_MS ? `< ${TICK_MS}` : ms.toFixed(0));

const perPath = (index: number): string =>
  policy(`allow-${index}`, {
    to: [{ operation: { methods: ["POST"], paths: [`/api/v1/item-${index}`, `/api/v1/refunds-${index}/*`] } }],
  });
const DENY = policy("deny-admin", { to: [{ operation: { paths: ["/admin/*"] } }] }, "DENY");

/** Nanoseconds by the number of rules, per engine that is here. */
async function compare(engines: readonly Engine[]): Promise<readonly Line[]> {
  const counts = quick ? [1, 100, 1_000, 10_000] : [1, 10, 100, 1_000, 10_000];
  const lines: Line[] = [];
  for (const engine of engines) {
    if (engine.missing !== null) {
      console.log(`not here: ${engine.name} (needs ${engine.missing.replace(/^needs /, "")})`);
      continue;
    }
    console.error(`measuring ${engine.name}`);
    try {
      const points: [number, number][] = [];
      for (const count of counts) {
        points.push([count, await engine.measure(count)]);
      }
      lines.push({ name: engine.name, points });
    } catch (cause) {
      console.log(`failed: ${engine.name}: ${cause instanceof Error ? cause.message : cause}`);
      process.exitCode = 1;
    }
  }
  return lines;
}

async function comparison(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "everyhop-bench-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const engines = [
    ourEngine(BUDGET),
    opaEngine(BUDGET, folder),
    cedarEngine(BUDGET),
    envoyEngine(ENVOY_BUDGET, folder),
  ];
  const lines = await compare(engines);
  const counts = lines[0]?.points.map(([count]) => count) ?? [];
  const rows = counts.map((count, at) => [count, ...lines.map(({ points }) => text(points[at]?.[1] ?? Number.NaN))]);
  console.log(`${table(["rules", ...lines.map(({ name }) => name)], rows)}\n`);
  if (svg !== undefined) {
    writeFileSync(svg, picture(lines));
    console.log(`wrote ${svg}\n`);
  }
}

function byPolicies(): string {
  const counts = quick ? [1, 100, 1_000] : [1, 10, 100, 1_000, 10_000];
  const sets = counts.map((count) => resourcesOf([...times(count, perPath), DENY]));
  const ours = sets.map((resources, at) =>
    measure(
      resources,
      [
        [caller("10.0.0.5"), request("POST", `/api/v1/item-${(counts[at] as number) - 1}`), "allow"],
        [caller("10.0.0.5"), request("POST", "/nothing"), "deny"],
        [caller("10.0.0.5"), request("POST", "/admin/x"), "deny"],
      ],
      BUDGET,
    ),
  );
  const rows = counts.map((count, at) => {
    const { compileMs, costs } = ours[at] as Measured;
    return [String(count), milliseconds(compileMs), ...costs.map(text)];
  });
  return table(["policies", "compile ms", "allowed", "no rule matches", "denied by rule"], rows);
}

/** Istio's own matrix: one policy with many values of one field. */
function byValues(count: number): string {
  const many = (make: (index: number) => string): string[] => times(count, make);
  const ip = (index: number): string => `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`;
  const last = count - 1;
  const claims = { iss: "https://i.example", sub: `u-${last}` };
  const cases: Readonly<Record<string, readonly [object, PeerFacts, HttpFacts]>> = {
    ipBlocks: [{ from: [{ source: { ipBlocks: many(ip) } }] }, caller(ip(last)), request("POST", "/")],
    principals: [
      { from: [{ source: { principals: [...many((index) => `cluster.local/ns/prod/sa/c-${index}`), "*/sa/web"] } }] },
      caller("10.0.0.5"),
      request("POST", "/"),
    ],
    paths: [
      { to: [{ operation: { paths: many((index) => `/item-${index}`) } }] },
      caller("10.0.0.5"),
      request("POST", `/item-${last}`),
    ],
    "path prefixes": [
      { to: [{ operation: { paths: many((index) => `/item-${index}/*`) } }] },
      caller("10.0.0.5"),
      request("POST", `/item-${last}/x`),
    ],
    requestPrincipals: [
      { from: [{ source: { requestPrincipals: many((index) => `https://i.example/u-${index}`) } }] },
      caller("10.0.0.5"),
      request("POST", "/", claims),
    ],
  };
  const rows = Object.entries(cases).map(([name, [rule, from, what]]) => {
    const { compileMs, costs } = measure(resourcesOf([policy("p", rule)]), [[from, what, "allow"]], BUDGET);
    return [name, milliseconds(compileMs), ...costs.map(text)];
  });
  return table([`one policy, ${count} of`, "compile ms", "allowed"], rows);
}

function floor(): number {
  const asked = request("POST", "/api/v1/item-0");
  return cost(
    () =>
      asked.method === "POST" &&
      (asked.path === "/api/v1/item-0" || asked.path?.startsWith("/api/v1/refunds-0/") === true),
    BUDGET,
  );
}

// So that an interrupted run leaves nothing behind.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => process.exit(1));
}
await comparison();
console.log(byPolicies());
console.log(`\n${byValues(1_000)}`);
console.log(`\none rule as a hand-written function: ${text(floor())}`);
