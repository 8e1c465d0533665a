/** CUSTOM on a TCP connection: an HTTP provider cannot be asked, and it is told the two sides alone. */
import type { Verdict } from "../../core/policy/verdict.ts";
import type { ProxyContext } from "../context.ts";
import type { Facts } from "../state.ts";
import type { Check } from "./check.ts";
import { type AskedConnection, customVerdict } from "./request.ts";

/** Calls `done` with what is decided, later; the result gives up, and `done` is then not called. */
export function askAboutConnection(
  context: ProxyContext,
  facts: Facts,
  verdict: Verdict,
  { peer, peerFacts }: AskedConnection,
  done: (verdict: Verdict) => void,
): () => void {
  const controller = new AbortController();
  const provider = facts.enforcer.provider(verdict.custom?.provider ?? "");
  const canBeAsked = provider !== null && provider.kind !== "http";
  const authorizer = canBeAsked ? context.authorizers.of(provider) : null;
  const check: Check = {
    source: { principal: peer, ip: peerFacts.sourceIp, port: 0 },
    destination: {
      principal: facts.snapshot.workload.spiffeId,
      ip: peerFacts.destinationIp,
      port: peerFacts.destinationPort,
    },
    sni: peerFacts.sni,
    startedMs: context.clock.now(),
    request: null,
  };
  const denied = customVerdict(verdict, -1);
  const asked = authorizer?.check(check, controller.signal) ?? Promise.resolve({ kind: "failed" } as const);
  void asked.then(({ kind }) => {
    if (!controller.signal.aborted) {
      const allows =
        kind === "allowed" || (kind === "failed" && authorizer !== null && provider?.extAuthz?.failOpen === true);
      done(allows ? verdict : denied);
    }
  });
  return () => controller.abort();
}
