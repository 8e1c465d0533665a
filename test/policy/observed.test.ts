/** Every behaviour observed on Istio's compiler and a real Envoy, decided by the code path of `policy decide`. */
import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { exportJwk } from "../../src/core/jose/jwk.ts";
import { assembleJws, jwsSigningInput, signJws } from "../../src/core/jose/jws.ts";
import { Decider } from "../../src/core/policy/decide.ts";
import { readDecisionRequest } from "../../src/core/policy/decision-request.ts";
import { DEFAULT_MESH_CONFIG, type MeshConfig } from "../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../src/core/policy/parse.ts";

interface Section {
  readonly title: string;
  readonly yaml: string;
  readonly trustDomain?: string;
  readonly pathNormalization?: MeshConfig["pathNormalization"];
  readonly rows: readonly Row[];
}

interface Row {
  readonly request: RowRequest;
  readonly decision: "allow" | "deny" | "error";
  readonly status: number;
  readonly by: string;
  readonly forwardedAs?: string;
}

interface RowRequest {
  readonly source?: Record<string, unknown>;
  readonly destination?: Record<string, unknown>;
  readonly request?: Record<string, unknown>;
  readonly mint?: { readonly claims: object; readonly alg?: "none"; readonly key?: "other" };
}

const sections = JSON.parse(readFileSync(join(import.meta.dirname, "observed.json"), "utf8")) as Section[];

const NOW = Date.UTC(2026, 8, 1);
const key = generateKeyPairSync("ec", { namedCurve: "P-256" });
const otherKey = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwks = JSON.stringify({ keys: [exportJwk(key.publicKey, { kid: "k" })] });

/** What a service behind the proxy needs to hear is not said by a policy: no route, no answer. */
const NO_ROUTE = 404;

for (const section of sections) {
  test(section.title, () => {
    const text = section.yaml.replaceAll("'<the key>'", `'${jwks}'`);
    const { resources, issues } = parseResources([{ file: section.title, text: forgiven(text) }]);
    assert.deepEqual(
      issues.filter((issue) => issue.severity === "error"),
      [],
    );
    const meshConfig = { ...DEFAULT_MESH_CONFIG, pathNormalization: section.pathNormalization ?? "BASE" } as const;
    const decider = new Decider(
      resources,
      { trustDomain: section.trustDomain ?? "cluster.local", meshConfig },
      { now: () => NOW },
    );
    for (const row of section.rows) {
      const request = complete(row.request, section);
      const answer = decider.decide(readDecisionRequest(request));
      const label = JSON.stringify(row.request);
      if (row.status === NO_ROUTE) {
        assert.equal(answer.decision, "allow", label);
        continue;
      }
      assert.equal(answer.decision, row.decision === "error" ? "deny" : row.decision, label);
      assert.equal(answer.status, row.status, label);
      if (row.forwardedAs !== undefined) {
        assert.equal(answer.path, row.forwardedAs, label);
      }
    }
  });
}

/** What Istio drops in silence is an error here; these rows show what it does without. */
function forgiven(yaml: string): string {
  return yaml.replace("{form: [{source: {namespaces: [x]}}], to:", "{to:");
}

/** The workload, the ports and the defaults of the observations. */
function complete(row: RowRequest, section: Section): unknown {
  const token = row.mint === undefined ? null : mint(row.mint);
  const filled: RowRequest =
    token === null ? row : (JSON.parse(JSON.stringify(row).replaceAll("{token}", token)) as RowRequest);
  const usesToken = JSON.stringify(row).includes("{token}");
  const { request } = filled;
  return {
    source: filled.source,
    destination: {
      namespace: "prod",
      name: "shop",
      labels: { app: "shop", version: "v1" },
      port: request === undefined ? 5432 : 8080,
      ...filled.destination,
    },
    ...(request === undefined
      ? {}
      : {
          request: {
            method: "GET",
            path: "/",
            host: "shop",
            ...request,
            ...(request.host === "-" ? { host: null } : {}),
            ...(token === null || usesToken ? {} : { token }),
            ...(section.title === "the same over HTTP/2" ? { version: "2" } : {}),
          },
        }),
  };
}

function mint({ claims, alg, key: which }: NonNullable<RowRequest["mint"]>): string {
  const payload = JSON.stringify(claims);
  if (alg === "none") {
    return assembleJws(jwsSigningInput({ alg: "none" }, payload), new Uint8Array());
  }
  const signer: KeyObject = which === "other" ? otherKey.privateKey : key.privateKey;
  return signJws({ alg: "ES256", kid: "k" }, payload, signer);
}
