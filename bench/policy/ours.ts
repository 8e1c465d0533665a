/** Our engine: one AuthorizationPolicy per rule, all of them for the workload that decides. */
import { compile } from "../../src/core/policy/compile.ts";
import { decideHttp, type HttpFacts, type PeerFacts } from "../../src/core/policy/evaluate.ts";
import { DEFAULT_MESH_CONFIG } from "../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../src/core/policy/parse.ts";
import type { Resource } from "../../src/core/policy/resources.ts";
import { type Budget, CALLER, cost, type Engine, METHOD, path, times, usedMicros } from "./engine.ts";

const WORKLOAD = { namespace: "prod", labels: { app: "payments" } };
const MESH = { trustDomain: "cluster.local", meshConfig: DEFAULT_MESH_CONFIG };

export function policy(name: string, rule: object, action = "ALLOW"): string {
  const metadata = { name, namespace: "prod" };
  return JSON.stringify({
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata,
    spec: { action, rules: [rule] },
  });
}

export const resourcesOf = (documents: readonly string[]): readonly Resource[] =>
  parseResources([{ file: "bench.yaml", text: documents.join("\n---\n") }]).resources;

export const caller = (sourceIp: string): PeerFacts => ({
  principal: CALLER,
  sourceIp,
  remoteIp: sourceIp,
  destinationIp: "10.0.0.9",
  destinationPort: 8080,
  sni: null,
});

export const request = (method: string, asked: string, auth: HttpFacts["auth"] = null): HttpFacts => ({
  method,
  path: asked,
  host: "payments:8080",
  header: () => null,
  auth,
});

export interface Measured {
  readonly compileMs: number;
  readonly costs: readonly number[];
}

export function measure(
  resources: readonly Resource[],
  asked: readonly (readonly [PeerFacts, HttpFacts, string])[],
  budget: Budget,
): Measured {
  const before = usedMicros();
  const compiled = compile(resources, WORKLOAD, MESH);
  // The sets of rules are made when they are first used.
  const answers = asked.map(([from, what]) => decideHttp(compiled, from, what).decision);
  const compileMs = (usedMicros() - before) / 1_000;
  if (answers.join() !== asked.map(([, , wanted]) => wanted).join()) {
    throw new Error(`not what is measured: ${answers.join()}`);
  }
  return { compileMs, costs: asked.map(([from, what]) => cost(() => decideHttp(compiled, from, what), budget)) };
}

export function ourEngine(budget: Budget): Engine {
  return {
    name: "everyhop",
    missing: null,
    measure(count) {
      const from = [{ source: { principals: [CALLER] } }];
      const documents = times(count, (index) =>
        policy(`allow-${index}`, { from, to: [{ operation: { methods: [METHOD], paths: [path(index)] } }] }),
      );
      const asked = [caller("10.0.0.5"), request(METHOD, path(count - 1)), "allow"] as const;
      const denied = [caller("10.0.0.5"), request(METHOD, "/nothing"), "deny"] as const;
      return measure(resourcesOf(documents), [asked, denied], budget).costs[0] as number;
    },
  };
}
