/** Liveness and readiness as SPIRE's `health_checks` serve them: a listener of their own, with paths of the operator's choice. */
import type { HttpAnswer } from "../io/http.ts";
import type { HealthConfig } from "./server-config.ts";

/** `problem`: why it is not ready, or null. It listens only once all else is up, and stops first. */
export function healthRoutes(
  { livePath, readyPath }: HealthConfig,
  problem: () => string | null = () => null,
): Readonly<Record<string, () => HttpAnswer>> {
  const answer = (status: number, document: object): HttpAnswer => ({
    status,
    contentType: "application/json",
    body: `${JSON.stringify(document)}\n`,
  });
  return {
    [livePath]: () => answer(200, {}),
    [readyPath]: () => {
      const found = problem();
      return found === null ? answer(200, {}) : answer(503, { problem: found });
    },
  };
}
