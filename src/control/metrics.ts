/** What the control plane tells Prometheus of itself. Labels are bounded: states, and the services registered. */
import { Counter, Gauge, Histogram, type Registry } from "prom-client";

export interface ControlMetrics {
  readonly pushes: Counter;
  readonly rejects: Counter;
  readonly pushSeconds: Histogram;
  readonly convergenceSeconds: Histogram;
  readonly refusedChanges: Counter;
}

/** Read when Prometheus asks. */
export interface ControlGauges {
  readonly worldVersion: () => number;
  readonly proxies: () => Readonly<Record<string, number>>;
  readonly problems: () => number;
  readonly kills: () => number;
  readonly identities: () => readonly { service: string; namespace: string; notBefore: number; notAfter: number }[];
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export function controlMetrics(registry: Registry): ControlMetrics {
  const registers = [registry];
  return {
    pushes: new Counter({ name: "everyhop_control_pushes_total", help: "Snapshots sent to sidecars.", registers }),
    rejects: new Counter({
      name: "everyhop_control_rejects_total",
      help: "Snapshots that a sidecar refused; it went on with the one before.",
      registers,
    }),
    pushSeconds: new Histogram({
      name: "everyhop_control_push_seconds",
      help: "From sending a snapshot to the sidecar's answer.",
      buckets: SECONDS,
      registers,
    }),
    convergenceSeconds: new Histogram({
      name: "everyhop_control_convergence_seconds",
      help: "From a change's publication until every connected sidecar has answered for it.",
      buckets: SECONDS,
      registers,
    }),
    refusedChanges: new Counter({
      name: "everyhop_control_refused_changes_total",
      help: "Saved changes that were not valid; the last good state stayed in force.",
      registers,
    }),
  };
}

export function registerGauges(registry: Registry, gauges: ControlGauges): void {
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  };
  gauge("everyhop_control_world_version", "Version of the state that is in force.", gauges.worldVersion);
  gauge("everyhop_control_problems", "Faults in policy files; their last good state is in force.", gauges.problems);
  gauge("everyhop_control_kills", "Identities that are cut off.", gauges.kills);
  new Gauge({
    name: "everyhop_control_proxies",
    help: "Sidecars by state; a stale one is not connected and goes on with its last snapshot.",
    labelNames: ["state"],
    registers,
    collect() {
      for (const [state, count] of Object.entries(gauges.proxies())) {
        this.set({ state }, count);
      }
    },
  });
  registerIdentityGauges(registry, gauges.identities);
}

function registerIdentityGauges(registry: Registry, read: ControlGauges["identities"]): void {
  const labelNames = ["service", "namespace"] as const;
  const make = (name: string, help: string, at: (identity: ReturnType<typeof read>[number]) => number): void => {
    new Gauge({
      name,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset();
        for (const identity of read()) {
          this.set({ service: identity.service, namespace: identity.namespace }, at(identity) / 1_000);
        }
      },
    });
  };
  make("everyhop_control_svid_not_before_seconds", "When the SVID a sidecar serves with began.", (id) => id.notBefore);
  make("everyhop_control_svid_not_after_seconds", "When the SVID a sidecar serves with ends.", (id) => id.notAfter);
}
