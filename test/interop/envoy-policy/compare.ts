/**
 * A real Envoy decides what the engine decided, on random scenarios.
 * Run for long: node test/interop/envoy-policy/compare.ts [FROM-SEED] [SCENARIOS] [REQUESTS-EACH]
 */
import { type Answer, Decider } from "../../../src/core/policy/decide.ts";
import { readDecisionRequest } from "../../../src/core/policy/decision-request.ts";
import { DEFAULT_MESH_CONFIG } from "../../../src/core/policy/mesh-config.ts";
import { peer } from "../../peers.ts";
import { resourcesOf } from "../../reference/agree.ts";
import { makeScenario, type Scenario } from "../../reference/generate.ts";
import type { Line } from "../../reference/generate-requests.ts";
import { Minter, withMintedToken } from "../../reference/mint.ts";
import { type Case, EnvoyJudge, freePorts, placeOf } from "./judge.ts";
import { translate } from "./translate.ts";
import type { WireAnswer } from "./wire.ts";

export interface Comparison {
  readonly requests: number;
  /** Of Envoy's answers, how many of each status. */
  readonly statuses: ReadonlyMap<number, number>;
  /** One text each, enough to replay it. */
  readonly disagreements: readonly string[];
}

export interface Span {
  readonly from: number;
  readonly scenarios: number;
  readonly requests: number;
}

/** As many scenarios as one Envoy is started with. */
const BATCH = 100;

export async function compareWithEnvoy(binary: string, span: Span): Promise<Comparison> {
  const minter = new Minter();
  const [httpPort, tcpPort] = await freePorts();
  const judge = new EnvoyJudge(binary, minter);
  const statuses = new Map<number, number>();
  const disagreements: string[] = [];
  let requests = 0;
  try {
    for (let at = 0; at < span.scenarios; at += BATCH) {
      const cases = Array.from({ length: Math.min(BATCH, span.scenarios - at) }, (_, index) =>
        caseOf(span.from + at + index, index, span.requests, minter, { http: httpPort, tcp: tcpPort }),
      );
      const answers = await judge.decide(cases, (_, line) => isTransportAccepted(cases, line));
      for (const [index, { scenario, decide }] of cases.entries()) {
        for (const [which, line] of scenario.requests.entries()) {
          const told = answers[index]?.[which] ?? null;
          if (told === null) {
            continue;
          }
          requests++;
          statuses.set(told.status, (statuses.get(told.status) ?? 0) + 1);
          const difference = differenceOf(told, decide(line), line);
          if (difference !== null) {
            disagreements.push(describe(scenario, line, difference));
          }
        }
      }
    }
  } finally {
    judge.close();
  }
  return { requests, statuses, disagreements };
}

type Decided = Case & { readonly decide: (line: Line) => Answer };

function caseOf(
  seed: number,
  index: number,
  requests: number,
  minter: Minter,
  ports: { http: number; tcp: number },
): Decided {
  const ip = placeOf(index + 1);
  const made = makeScenario(seed, { ports, jwks: minter.jwks, requests, destinationIp: ip });
  const scenario = { ...made, requests: made.requests.map((line) => withMintedToken(line, minter)) };
  const resources = resourcesOf(scenario);
  const meshConfig = { ...DEFAULT_MESH_CONFIG, ...scenario.mesh, trustDomain: null };
  const decider = new Decider(resources, { trustDomain: scenario.mesh.trustDomain, meshConfig }, { now: Date.now });
  return {
    scenario,
    filters: translate(resources, scenario.mesh),
    place: { ip, httpPort: ports.http, tcpPort: ports.tcp },
    decide: (line) => decider.decide(readDecisionRequest(line)),
  };
}

/** This Envoy takes mutual TLS and plaintext on every port: what a mode refuses is not asked. */
function isTransportAccepted(cases: readonly Decided[], line: Line): boolean {
  const own = cases.find(({ scenario }) => scenario.requests.includes(line));
  return own !== undefined && own.decide(line).reason !== "plaintext-refused";
}

/** `..;` at the very beginning stays under DECODE_AND_MERGE_SLASHES: Istio's vectors want it, Envoy 1.40 resolves it. */
const isKeptDot = (answer: Answer): boolean => answer.path?.startsWith("/..;/") === true;

/** No route is behind the policies here. */
const NO_ROUTE = 404;

function differenceOf(told: WireAnswer, answer: Answer, line: Line): string | null {
  const status = told.status === NO_ROUTE ? answer.status : told.status;
  if (isKeptDot(answer)) {
    return null;
  }
  if (status !== answer.status) {
    return `Envoy ${told.status} (${told.headers["x-details"]}), ours ${answer.status} ${answer.reason} ${answer.policy} ${answer.rule}`;
  }
  const path = told.headers["x-decided-path"];
  if (line.request !== undefined && path !== undefined && (status === 200 || status === 403) && path !== answer.path) {
    return `Envoy's path ${path}, ours ${answer.path}`;
  }
  const [, policy, rule] = /-policy\[(.*)\]-rule\[(\d+)\]/.exec(told.headers["x-details"] ?? "") ?? [];
  return policy !== undefined && `${answer.policy}/${answer.rule}`.split("/").slice(1).join("/") !== `${policy}/${rule}`
    ? `Envoy denied by ${policy} rule ${rule}, ours by ${answer.policy} rule ${answer.rule}`
    : null;
}

function describe(scenario: Scenario, line: Line, difference: string): string {
  const documents = scenario.documents.map((document) => JSON.stringify(document));
  return [
    `seed ${scenario.seed}: ${difference}`,
    JSON.stringify(scenario.mesh),
    ...documents,
    JSON.stringify(line),
  ].join("\n");
}

async function main([from = "1", scenarios = "500", requests = "30"]: readonly string[]): Promise<void> {
  const binary = peer("envoy");
  if (binary === null) {
    throw new Error("needs envoy: bash tools/peers");
  }
  const result = await compareWithEnvoy(binary, {
    from: Number(from),
    scenarios: Number(scenarios),
    requests: Number(requests),
  });
  console.log(result.disagreements.slice(0, 20).join("\n\n"));
  console.log(
    `${result.requests} requests, ${result.disagreements.length} disagreements`,
    Object.fromEntries(result.statuses),
  );
  process.exitCode = result.disagreements.length === 0 ? 0 : 1;
}

if (import.meta.main) {
  await main(process.argv.slice(2));
}
