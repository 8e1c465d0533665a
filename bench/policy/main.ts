/**
 * What a decision costs, on one thread, in processor time: 1 to 10,000 ALLOW policies that all select the workload, each for another
 * path, and a request that the last of them allows, that none allows, and that a DENY policy denies; then one policy with as many
 * values in one field. Beside it what a hand-written function of one rule costs: the floor.
 */
import { compile } from "../../src/core/policy/compile.ts";
import { decideHttp, type HttpFacts, type PeerFacts } from "../../src/core/policy/evaluate.ts";
import { DEFAULT_MESH_CONFIG } from "../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../src/core/policy/parse.ts";
import type { Resource } from "../../src/core/policy/resources.ts";
import { table } from "../measure.ts";

const quick = process.argv.includes("--quick");
const ROUNDS = 5;
const ROUND_MS = quick ? 40 : 300;

const WORKLOAD = { namespace: "prod", labels: { app: "payments" } };
const MESH = { trustDomain: "cluster.local", meshConfig: DEFAULT_MESH_CONFIG };

function policy(name: string, rule: object, action = "ALLOW"): string {
  const metadata = { name, namespace: "prod" };
  return JSON.stringify({
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata,
    spec: { action, rules: [rule] },
  });
}

const resourcesOf = (documents: readonly string[]): readonly Resource[] =>
  parseResources([{ file: "bench.yaml", text: documents.join("\n---\n") }]).resources;

const perPath = (index: number): string =>
  policy(`allow-${index}`, {
    to: [{ operation: { methods: ["POST"], paths: [`/api/v1/item-${index}`, `/api/v1/refunds-${index}/*`] } }],
  });
const DENY = policy("deny-admin", { to: [{ operation: { paths: ["/admin/*"] } }] }, "DENY");

const caller = (sourceIp: string): PeerFacts => ({
  principal: "cluster.local/ns/prod/sa/web",
  sourceIp,
  remoteIp: sourceIp,
  destinationIp: "10.0.0.9",
  destinationPort: 8080,
  sni: null,
});

const request = (path: string, auth: HttpFacts["auth"] = null): HttpFacts => ({
  method: "POST",
  path,
  host: "payments:8080",
  header: () => null,
  auth,
});

/** Microseconds of processor time this thread has used. */
function usedMicros(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

/** The least nanoseconds of one call over some rounds; the first warms up. */
function cost(action: () => unknown): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round <= ROUNDS; round++) {
    const until = performance.now() + ROUND_MS;
    const before = usedMicros();
    let calls = 0;
    do {
      for (let each = 0; each < 1_000; each++) {
        action();
      }
      calls += 1_000;
    } while (performance.now() < until);
    best = round === 0 ? best : Math.min(best, ((usedMicros() - before) * 1_000) / calls);
  }
  return best;
}

const text = (ns: number): string =>
  ns < 1_000 ? `${ns.toFixed(0)} ns` : ns < 1e6 ? `${(ns / 1_000).toFixed(1)} us` : `${(ns / 1e6).toFixed(2)} ms`;

interface Measured {
  readonly compileMs: number;
  readonly costs: readonly number[];
}

function measure(
  resources: readonly Resource[],
  asked: readonly (readonly [PeerFacts, HttpFacts, string])[],
): Measured {
  const before = usedMicros();
  const compiled = compile(resources, WORKLOAD, MESH);
  // The sets of rules are made when they are first used.
  const answers = asked.map(([from, what]) => decideHttp(compiled, from, what).decision);
  const compileMs = (usedMicros() - before) / 1_000;
  if (answers.join() !== asked.map(([, , wanted]) => wanted).join()) {
    throw new Error(`not what is measured: ${answers.join()}`);
  }
  return { compileMs, costs: asked.map(([from, what]) => cost(() => decideHttp(compiled, from, what))) };
}

async function byPolicies(): Promise<string> {
  const counts = quick ? [1, 100, 1_000] : [1, 10, 100, 1_000, 10_000];
  const sets = counts.map((count) =>
    resourcesOf([...Array.from({ length: count }, (_, index) => perPath(index)), DENY]),
  );
  const ours = sets.map((resources, at) =>
    measure(resources, [
      [caller("10.0.0.5"), request(`/api/v1/item-${(counts[at] as number) - 1}`), "allow"],
      [caller("10.0.0.5"), request("/nothing"), "deny"],
      [caller("10.0.0.5"), request("/admin/x"), "deny"],
    ]),
  );
  const rows = counts.map((count, at) => {
    const { compileMs, costs } = ours[at] as Measured;
    return [String(count), compileMs.toFixed(1), ...costs.map(text)];
  });
  return table(["policies", "compile ms", "allowed", "no rule matches", "denied by rule"], rows);
}

/** Istio's own matrix: one policy with many values of one field. */
function byValues(count: number): string {
  const many = (make: (index: number) => string): string[] => Array.from({ length: count }, (_, index) => make(index));
  const ip = (index: number): string => `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`;
  const last = count - 1;
  const claims = { iss: "https://i.example", sub: `u-${last}` };
  const cases: Readonly<Record<string, readonly [object, PeerFacts, HttpFacts]>> = {
    ipBlocks: [{ from: [{ source: { ipBlocks: many(ip) } }] }, caller(ip(last)), request("/")],
    principals: [
      { from: [{ source: { principals: [...many((index) => `cluster.local/ns/prod/sa/c-${index}`), "*/sa/web"] } }] },
      caller("10.0.0.5"),
      request("/"),
    ],
    paths: [
      { to: [{ operation: { paths: many((index) => `/item-${index}`) } }] },
      caller("10.0.0.5"),
      request(`/item-${last}`),
    ],
    "path prefixes": [
      { to: [{ operation: { paths: many((index) => `/item-${index}/*`) } }] },
      caller("10.0.0.5"),
      request(`/item-${last}/x`),
    ],
    requestPrincipals: [
      { from: [{ source: { requestPrincipals: many((index) => `https://i.example/u-${index}`) } }] },
      caller("10.0.0.5"),
      request("/", claims),
    ],
  };
  const rows = Object.entries(cases).map(([name, [rule, from, what]]) => {
    const { compileMs, costs } = measure(resourcesOf([policy("p", rule)]), [[from, what, "allow"]]);
    return [name, compileMs.toFixed(1), ...costs.map(text)];
  });
  return table([`one policy, ${count} of`, "compile ms", "allowed"], rows);
}

function floor(): number {
  const asked = request("/api/v1/item-0");
  return cost(
    () =>
      asked.method === "POST" &&
      (asked.path === "/api/v1/item-0" || asked.path?.startsWith("/api/v1/refunds-0/") === true),
  );
}

console.log(await byPolicies());
console.log(`\n${byValues(1_000)}`);
console.log(`\none rule as a hand-written function: ${text(floor())}`);
