/** What the identity server tells Prometheus of itself. Labels are bounded: methods, kinds and status codes. */
import { status } from "@grpc/grpc-js";
import { Counter, Gauge, Histogram, type Registry as Metrics } from "prom-client";

export interface IdentityMetrics {
  /** A call ended with a gRPC status, or a stream was admitted. `seconds`: null for a stream. */
  readonly called: (method: string, code: number, seconds: number | null) => void;
  readonly issued: (kind: "x509-svid" | "x509-ca" | "jwt-svid") => void;
}

/** Read when Prometheus asks. */
export interface IdentityGauges {
  /** 1, or 0 while it is away. */
  readonly databaseUp: () => number;
  readonly agents: () => number;
  readonly entries: () => number;
  /** When the active CA expires, in seconds since 1970. */
  readonly caExpiry: () => number;
  readonly caBegin: () => number;
  readonly bundleSequence: () => number;
  /** Trust domains whose bundle endpoint is followed, and whether its last poll went well. */
  readonly federation: () => ReadonlyMap<string, boolean>;
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30];

export function identityMetrics(registry: Metrics): IdentityMetrics {
  const registers = [registry];
  const calls = new Counter({
    name: "everyhop_server_calls_total",
    help: "Calls of agents and administrators, by method and gRPC status.",
    labelNames: ["method", "code"],
    registers,
  });
  const duration = new Histogram({
    name: "everyhop_server_call_seconds",
    help: "How long a call took, streams left out.",
    buckets: SECONDS,
    registers,
  });
  const issued = new Counter({
    name: "everyhop_server_svids_issued_total",
    help: "SVIDs signed for those who asked over the network or the admin socket.",
    labelNames: ["kind"],
    registers,
  });
  // A series that is born at 3 and stays has no rate: these count from 0.
  for (const kind of ["x509-svid", "x509-ca", "jwt-svid"]) {
    issued.inc({ kind }, 0);
  }
  return {
    called: (method, code, seconds) => {
      calls.inc({ method, code: status[code] ?? String(code) });
      if (seconds !== null) {
        duration.observe(seconds);
      }
    },
    issued: (kind) => issued.inc({ kind }),
  };
}

export function registerIdentityGauges(registry: Metrics, gauges: IdentityGauges): void {
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  };
  gauge(
    "everyhop_server_database_up",
    "Whether the server reaches its database; 0: nothing is changed or signed.",
    gauges.databaseUp,
  );
  gauge("everyhop_server_agents", "Agents that attested and are not banned.", gauges.agents);
  gauge("everyhop_server_entries", "Registration entries.", gauges.entries);
  gauge("everyhop_server_ca_expiry_timestamp_seconds", "When the active CA expires.", gauges.caExpiry);
  gauge("everyhop_server_ca_begin_timestamp_seconds", "When the active CA began.", gauges.caBegin);
  gauge("everyhop_server_bundle_sequence", "Sequence number of the trust bundle.", gauges.bundleSequence);
  // As many series as relationships, which administrators make.
  new Gauge({
    name: "everyhop_server_federation_up",
    help: "1 while the last poll of a federated trust domain's bundle endpoint went well.",
    labelNames: ["trust_domain"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [trust_domain, up] of gauges.federation()) {
        this.set({ trust_domain }, up ? 1 : 0);
      }
    },
  });
}
