/** Cedar as its authors publish it for JavaScript: WebAssembly, policies parsed beforehand, no entities and no schema. */
import { createRequire } from "node:module";
import { type Budget, CALLER, cost, type Engine, METHOD, path, times } from "./engine.ts";

/** What is used of @cedar-policy/cedar-wasm, which an installation without development dependencies does not have. */
interface Cedar {
  getCedarVersion(): string;
  preparsePolicySet(id: string, policies: { staticPolicies: string }): { type: string };
  statefulIsAuthorized(call: object): { type: string; response?: { decision: string } };
}

function load(): Cedar | null {
  try {
    return createRequire(import.meta.url)("@cedar-policy/cedar-wasm/nodejs") as Cedar;
  } catch {
    return null;
  }
}

const entity = (type: string, id: string): string => `${type}::${JSON.stringify(id)}`;

export function cedarEngine(budget: Budget): Engine {
  const cedar = load();
  return {
    name: "Cedar (wasm)",
    missing: cedar === null ? "npm package @cedar-policy/cedar-wasm" : null,
    measure(count) {
      if (cedar === null) {
        throw new Error("not here");
      }
      const policies = times(
        count,
        (index) =>
          `permit(principal == ${entity("Workload", CALLER)}, action == ${entity("Action", METHOD)}, resource == ${entity("Path", path(index))});`,
      );
      const set = `rules-${count}`;
      const parsed = cedar.preparsePolicySet(set, { staticPolicies: policies.join("\n") });
      const ask = (asked: string) =>
        cedar.statefulIsAuthorized({
          principal: { type: "Workload", id: CALLER },
          action: { type: "Action", id: METHOD },
          resource: { type: "Path", id: asked },
          context: {},
          entities: [],
          preparsedPolicySetId: set,
        }).response?.decision;
      if (parsed.type !== "success" || ask(path(count - 1)) !== "allow" || ask("/nothing") !== "deny") {
        throw new Error("Cedar does not answer what is measured");
      }
      return cost(() => ask(path(count - 1)), budget, 1);
    },
  };
}
