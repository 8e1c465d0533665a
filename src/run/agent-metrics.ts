import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { RunningAgent } from "../identity/agent/agent.ts";

/** The agent's metrics. Identities are no labels: their number has no bound. */
export function agentMetrics(agent: RunningAgent): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  const seconds = (ms: number | null): number => (ms === null ? 0 : ms / 1_000);
  gauge("everyhop_agent_entries", "registration entries this agent may hand out", () => agent.cache.entries.size);
  gauge("everyhop_agent_svids", "X.509-SVIDs held for workloads", () => agent.cache.svidCount);
  gauge(
    "everyhop_agent_svids_overdue",
    "X.509-SVIDs held for workloads that should have been renewed at half their life, and have less than a quarter left",
    () => agent.cache.overdueCount,
  );
  gauge(
    "everyhop_agent_svid_failures",
    "entries whose X.509-SVID could not be obtained",
    () => agent.cache.failureCount,
  );
  gauge("everyhop_agent_synced_timestamp_seconds", "when the cache was last in step with the server", () =>
    seconds(agent.sync.value.syncedAtMs),
  );
  gauge(
    "everyhop_agent_cache_saved_timestamp_seconds",
    "when what workloads are given was last written to the disk; 0 where nothing is kept",
    () => seconds(agent.keptAtMs()),
  );
  gauge("everyhop_agent_server_reachable", "1 while the last exchange with the server succeeded", () =>
    agent.sync.value.problem === null ? 1 : 0,
  );
  gauge("everyhop_agent_own_svid_expiry_timestamp_seconds", "when the agent's own X.509-SVID expires", () =>
    seconds(agent.own.value.svid.notAfter),
  );
  gauge("everyhop_agent_own_svid_begin_timestamp_seconds", "when the agent's own X.509-SVID began", () =>
    seconds(agent.own.value.svid.notBefore),
  );
  gauge(
    "everyhop_agent_workload_connections",
    "open connections to the Workload API",
    () => agent.connections().workload,
  );
  gauge(
    "everyhop_agent_broker_connections",
    "open connections to the broker endpoint",
    () => agent.connections().broker,
  );
  attestationCounter(registry, agent);
  return registry;
}

/** By attestor and outcome: a kind that fails for every process is a broken configuration, not a workload's fault. */
function attestationCounter(registry: Registry, agent: RunningAgent): void {
  new Counter({
    name: "everyhop_agent_workload_attestations_total",
    help: "how often each workload attestor answered, or failed and was left out",
    labelNames: ["attestor", "outcome"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [attestor, { answered, failed }] of agent.attestations()) {
        this.inc({ attestor, outcome: "answered" }, answered);
        this.inc({ attestor, outcome: "failed" }, failed);
      }
    },
  });
}
