/** One random scenario: resources, the mesh they are in, and requests to a workload. */
import {
  authorizationPolicy,
  type Document,
  type Ports,
  peerAuthentication,
  requestAuthentication,
} from "./generate-policies.ts";
import { type Line, requestLine } from "./generate-requests.ts";
import { Random } from "./random.ts";

export interface Scenario {
  readonly seed: number;
  readonly documents: readonly Document[];
  readonly mesh: {
    readonly rootNamespace: string;
    readonly trustDomain: string;
    readonly trustDomainAliases: readonly string[];
    readonly pathNormalization: "NONE" | "BASE" | "MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES";
  };
  readonly requests: readonly Line[];
}

export interface ScenarioOptions {
  readonly ports: Ports;
  readonly jwks: string;
  readonly requests: number;
  readonly destinationIp: string;
}

/** What the workload of every scenario is. */
export const WORKLOAD = { namespace: "prod", labels: { app: "shop", version: "v1" } };

export function makeScenario(seed: number, options: ScenarioOptions): Scenario {
  const random = new Random(seed);
  const { ports } = options;
  const tokens = random.chance(0.3);
  const documents: Document[] = [
    ...random.many(0, 5, () => 0).map((_, index) => authorizationPolicy(random, ports, `p${index}`)),
    ...(random.chance(0.25)
      ? random.many(1, 4, () => 0).map((_, index) => peerAuthentication(random, ports, `m${index}`))
      : []),
    ...(tokens
      ? random.many(1, 2, () => 0).map((_, index) => requestAuthentication(random, options.jwks, `j${index}`))
      : []),
  ];
  if (random.chance(0.2)) {
    for (const document of documents) {
      Object.assign(document.metadata, { creationTimestamp: `2024-01-0${random.int(1, 4)}T00:00:00Z` });
    }
  }
  const mesh: Scenario["mesh"] = {
    rootNamespace: "istio-system",
    trustDomain: random.pick(["cluster.local", "example.com"]),
    trustDomainAliases: random.chance(0.25) ? random.many(1, 2, () => random.pick(["a.td", "other.td", "*.td"])) : [],
    pathNormalization: random.pick(["BASE", "BASE", "NONE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]),
  };
  const request = () => requestLine(random, documents, { ports, tokens, destinationIp: options.destinationIp });
  return { seed, documents, mesh, requests: random.many(options.requests, options.requests, request) };
}
