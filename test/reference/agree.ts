/**
 * Compares the two evaluators on random scenarios. Run for long: node test/reference/agree.ts [FROM-SEED] [SCENARIOS]
 */
import { Decider } from "../../src/core/policy/decide.ts";
import { readDecisionRequest } from "../../src/core/policy/decision-request.ts";
import { DEFAULT_MESH_CONFIG } from "../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../src/core/policy/parse.ts";
import type { Resource } from "../../src/core/policy/resources.ts";
import { decideSlowly } from "./evaluate.ts";
import { makeScenario, type Scenario } from "./generate.ts";
import type { Line } from "./generate-requests.ts";
import { Minter, withMintedToken } from "./mint.ts";
import { shrink } from "./shrink.ts";

export const NOW_MS = Date.UTC(2026, 8, 1);
export const PORTS = { http: 8080, tcp: 5432 };

/** What the two say, as far as it has to be the same. */
interface Said {
  readonly decision: string;
  readonly status: number;
  readonly reason: string;
  readonly policy: string | null;
  readonly rule: number | null;
  readonly path: string | undefined;
  readonly audit: readonly string[];
  readonly dryRun: string | null;
  readonly mtls: string;
}

export function resourcesOf(scenario: Scenario): readonly Resource[] {
  const files = scenario.documents.map((document, index) => ({
    file: `${index}.yaml`,
    text: JSON.stringify(document),
  }));
  const { resources, issues } = parseResources(files);
  const errors = issues.filter(({ severity }) => severity === "error");
  if (errors.length > 0) {
    throw new Error(`seed ${scenario.seed} made a resource that is refused: ${JSON.stringify(errors)}`);
  }
  return resources;
}

/** A combined would-be verdict is only asked for where no CUSTOM policy was. */
const comparable = (answer: Said): Said => ({
  ...answer,
  dryRun: answer.reason === "custom-denied" ? null : answer.dryRun,
});

function fast(decider: Decider, line: Line): Said {
  const { decision, status, reason, policy, rule, path, audit, dryRun, mtls } = decider.decide(
    readDecisionRequest(line),
  );
  return comparable({ decision, status, reason, policy, rule, path, audit, dryRun: dryRun.decision, mtls });
}

function slow(resources: readonly Resource[], scenario: Scenario, line: Line): Said {
  const world = { mesh: scenario.mesh, httpProviders: [], nowMs: NOW_MS };
  const { decision, status, reason, policy, rule, path, audit, dryRun, mtls } = decideSlowly(resources, world, line);
  return comparable({ decision, status, reason, policy, rule, path, audit, dryRun, mtls });
}

export interface Disagreement {
  readonly scenario: Scenario;
  readonly fast: Said;
  readonly slow: Said;
}

/** The first request of a scenario that the two decide differently, alone in its scenario. */
export function compare(scenario: Scenario, seen: (reason: string) => void = () => {}): Disagreement | null {
  const resources = resourcesOf(scenario);
  const meshConfig = { ...DEFAULT_MESH_CONFIG, ...scenario.mesh, trustDomain: null };
  const decider = new Decider(resources, { trustDomain: scenario.mesh.trustDomain, meshConfig }, { now: () => NOW_MS });
  for (const line of scenario.requests) {
    const answers = { fast: fast(decider, line), slow: slow(resources, scenario, line) };
    seen(answers.fast.reason);
    if (JSON.stringify(answers.fast) !== JSON.stringify(answers.slow)) {
      return { scenario: { ...scenario, requests: [line] }, ...answers };
    }
  }
  return null;
}

/** The scenario of a seed, its tokens minted. */
export function scenarioOf(seed: number, minter: Minter, requests = 12): Scenario {
  const scenario = makeScenario(seed, { ports: PORTS, jwks: minter.jwks, requests, destinationIp: "10.0.0.9" });
  return { ...scenario, requests: scenario.requests.map((line) => withMintedToken(line, minter)) };
}

/** A disagreement, made as small as it goes, as a person can replay it. */
export function describe(found: Disagreement): string {
  const {
    scenario,
    fast: one,
    slow: other,
  } = shrink(found, (smaller) => {
    try {
      return compare(smaller);
    } catch {
      return null;
    }
  });
  return [
    `seed ${found.scenario.seed}, mesh ${JSON.stringify(scenario.mesh)}`,
    ...scenario.documents.map((document) => `---\n${JSON.stringify(document)}`),
    JSON.stringify(scenario.requests[0]),
    `evaluator: ${JSON.stringify(one)}`,
    `reference: ${JSON.stringify(other)}`,
  ].join("\n");
}

function main([from = "1", count = "1000"]: readonly string[]): void {
  const minter = new Minter();
  const reasons = new Map<string, number>();
  let pairs = 0;
  let disagreements = 0;
  for (let seed = Number(from); seed < Number(from) + Number(count); seed++) {
    const found = compare(scenarioOf(seed, minter), (reason) => {
      pairs++;
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    });
    if (found !== null && ++disagreements <= 10) {
      console.log(`${describe(found)}\n`);
    }
  }
  const shares = [...reasons].map(([reason, times]) => `${reason} ${((100 * times) / pairs).toFixed(1)} %`);
  console.log(`${pairs} pairs, ${disagreements} disagreements; ${shares.join(", ")}`);
  process.exitCode = disagreements === 0 ? 0 : 1;
}

if (import.meta.main) {
  main(process.argv.slice(2));
}
