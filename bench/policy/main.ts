/**
 * Decisions a second, one thread, and what compiling costs: with 1 to 10,000 ALLOW policies that all select the workload, each for
 * another caller, and a request that the last of them allows, that none allows, and that a DENY policy denies. Beside it, what a
 * hand-written function of the same single rule costs: the floor.
 */
import { compile } from "../../src/core/policy/compile.ts";
import { decideHttp, type HttpFacts, type PeerFacts } from "../../src/core/policy/evaluate.ts";
import { DEFAULT_MESH_CONFIG } from "../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../src/core/policy/parse.ts";
import { median, table } from "../measure.ts";

const quick = process.argv.includes("--quick");
const ROUNDS = 5;
const ROUND_MS = quick ? 40 : 300;

const policy = (index: number): string => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-${index}, namespace: production}
spec:
  selector: {matchLabels: {app: payment-service}}
  action: ALLOW
  rules:
  - from: [{source: {principals: ["cluster.local/ns/production/sa/caller-${index}"]}}]
    to: [{operation: {methods: [POST], paths: ["/api/v1/payments", "/api/v1/refunds/*"]}}]
`;

const DENY = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-admin, namespace: production}
spec:
  selector: {matchLabels: {app: payment-service}}
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin/*"]}}]
`;

const WORKLOAD = { namespace: "production", labels: { app: "payment-service" } };
const MESH = { trustDomain: "example.com", meshConfig: DEFAULT_MESH_CONFIG };

const peer = (caller: string): PeerFacts => ({
  principal: `example.com/ns/production/sa/${caller}`,
  sourceIp: "10.0.0.5",
  remoteIp: "10.0.0.5",
  destinationIp: "10.0.0.9",
  destinationPort: 8080,
  sni: null,
});

const request = (path: string): HttpFacts => ({
  method: "POST",
  path,
  host: "payment-service:8080",
  header: () => null,
  auth: null,
});

/** Median nanoseconds of one call; the first round warms up. */
function cost(action: () => unknown): number {
  const rounds: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const start = process.hrtime.bigint();
    const end = start + BigInt(ROUND_MS) * 1_000_000n;
    let calls = 0;
    let now = start;
    while (now < end) {
      for (let i = 0; i < 100; i++) {
        action();
      }
      calls += 100;
      now = process.hrtime.bigint();
    }
    rounds.push(Number(now - start) / calls);
  }
  return median(rounds.slice(1));
}

const text = (ns: number): string => `${ns < 1_000 ? `${ns.toFixed(0)} ns` : `${(ns / 1_000).toFixed(1)} us`}`;
const rate = (ns: number): string => Math.round(1e9 / ns).toLocaleString("en");

function row(count: number): string[] {
  const parsed = parseResources([
    { file: "bench.yaml", text: [...Array.from({ length: count }, (_, index) => policy(index)), DENY].join("---\n") },
  ]);
  const started = performance.now();
  const compiled = compile(parsed.resources, WORKLOAD, MESH);
  // The sets of rules are made when they are first used.
  const last = { peer: peer(`caller-${count - 1}`), request: request("/api/v1/payments") };
  const allowed = decideHttp(compiled, last.peer, last.request);
  const compileMs = performance.now() - started;
  const stranger = { peer: peer("nobody"), request: request("/api/v1/payments") };
  const denied = { peer: peer("caller-0"), request: request("/admin/x") };
  const answers = [
    allowed,
    decideHttp(compiled, stranger.peer, stranger.request),
    decideHttp(compiled, denied.peer, denied.request),
  ];
  if (answers.map(({ decision }) => decision).join() !== "allow,deny,deny") {
    throw new Error(`not what is measured: ${JSON.stringify(answers)}`);
  }
  const costs = [last, stranger, denied].map((one) => cost(() => decideHttp(compiled, one.peer, one.request)));
  return [String(count), compileMs.toFixed(1), ...costs.flatMap((ns) => [text(ns), rate(ns)])];
}

function floor(): number {
  const from = peer("caller-0");
  const asked = request("/api/v1/payments");
  return cost(
    () =>
      from.principal === "example.com/ns/production/sa/caller-0" &&
      asked.method === "POST" &&
      (asked.path === "/api/v1/payments" || asked.path?.startsWith("/api/v1/refunds/") === true),
  );
}

const counts = quick ? [1, 100, 1_000] : [1, 10, 100, 1_000, 10_000];
const head = ["policies", "compile ms", "allowed", "/s", "no rule matches", "/s", "denied by rule", "/s"];
console.log(table(head, counts.map(row)));
console.log(`\none rule as a hand-written function: ${text(floor())}`);
