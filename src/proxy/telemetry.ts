/** The sidecar's metrics: Istio's names and labels, so that dashboards and alerts made for Istio work. */
import type { Upstream, WorkloadDescription } from "../core/api/snapshot.ts";
import { principalOf, type SpiffeId } from "../core/spiffe/id.ts";
import { type Counter, type Histogram, Registry } from "../io/metrics.ts";

/** Istio's labels in Istio's order (istio/proxy testdata/metric/server_request_total.yaml.tmpl). */
const PARTIES = [
  "reporter",
  "source_workload",
  "source_canonical_service",
  "source_canonical_revision",
  "source_workload_namespace",
  "source_principal",
  "source_app",
  "source_version",
  "source_cluster",
  "destination_workload",
  "destination_workload_namespace",
  "destination_principal",
  "destination_app",
  "destination_version",
  "destination_service",
  "destination_canonical_service",
  "destination_canonical_revision",
  "destination_service_name",
  "destination_service_namespace",
  "destination_cluster",
] as const;
const HTTP = [...PARTIES, "request_protocol", "response_code", "grpc_response_status", "response_flags"];
const TCP = [...PARTIES, "request_protocol", "response_flags", "connection_security_policy"];
const SECURITY = "connection_security_policy";

/** Envoy's default buckets, which Istio's histograms have. */
const MILLISECONDS = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
  3_600_000,
];
const CODES = new Set<number>([
  100, 101, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401,
  402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426,
  428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
]);

export type Reporter = "source" | "destination";
export type Security = "mutual_tls" | "none" | "unknown";

/** A party of a connection as labels say it; null where nothing is known of it. */
export interface Party {
  readonly name: string;
  readonly namespace: string;
  readonly principal: string;
  readonly labels: Readonly<Record<string, string>>;
}

export function partyOf(workload: WorkloadDescription | Upstream): Party {
  const { name, namespace, labels, spiffeId } = workload;
  return { name, namespace, labels, principal: spiffeId };
}

/** A proven identity that the snapshot does not name. */
export function strangerOf(id: SpiffeId | null): Party | null {
  return id === null
    ? null
    : { name: "unknown", namespace: "unknown", labels: {}, principal: `spiffe://${principalOf(id)}` };
}

const UNKNOWN: Party = { name: "unknown", namespace: "unknown", principal: "unknown", labels: {} };

function partyLabels(reporter: Reporter, source: Party, destination: Party): string[] {
  const app = (party: Party) => party.labels.app ?? "unknown";
  const version = (party: Party) => party.labels.version ?? "unknown";
  const canonical = (party: Party) => party.labels["service.istio.io/canonical-name"] ?? party.labels.app ?? party.name;
  const revision = (party: Party) =>
    party.labels["service.istio.io/canonical-revision"] ??
    party.labels.version ??
    (party === UNKNOWN ? "unknown" : "latest");
  return [
    reporter,
    source.name,
    canonical(source),
    revision(source),
    source.namespace,
    source.principal,
    app(source),
    version(source),
    source === UNKNOWN ? "unknown" : CLUSTER,
    destination.name,
    destination.namespace,
    destination.principal,
    app(destination),
    version(destination),
    `${destination.name}.${destination.namespace}`,
    canonical(destination),
    revision(destination),
    destination.name,
    destination.namespace,
    CLUSTER,
  ];
}

const CLUSTER = "everyhop";

interface HttpHandles {
  readonly requests: Counter;
  readonly duration: Histogram;
  readonly requestBytes: Histogram;
  readonly responseBytes: Histogram;
}

/** HOT: the series of one pair of workloads; held by each connection. */
export class HttpSeries {
  readonly #telemetry: Telemetry;
  readonly #parties: readonly string[];
  readonly #security: Security;
  readonly #handles = new Map<string, Map<number, HttpHandles>>();

  constructor(telemetry: Telemetry, parties: readonly string[], security: Security) {
    this.#telemetry = telemetry;
    this.#parties = parties;
    this.#security = security;
  }

  record(status: number, flags: string, durationMs: number, received: number, sent: number): void {
    const handles = this.#at(status, flags);
    handles.requests.value++;
    handles.duration.observe(durationMs);
    handles.requestBytes.observe(received);
    handles.responseBytes.observe(sent);
  }

  /** Makes the counter of one status and flag, at 0 where it is new; histograms are made when there is something to see in them. */
  expect(status: number, flags: string): void {
    this.#telemetry.families.requests.with(...this.#labels(status, flags));
  }

  #at(status: number, flags: string): HttpHandles {
    let byStatus = this.#handles.get(flags);
    if (byStatus === undefined) {
      byStatus = new Map();
      this.#handles.set(flags, byStatus);
    }
    let handles = byStatus.get(status);
    if (handles === undefined) {
      handles = this.#make(status, flags);
      byStatus.set(status, handles);
    }
    return handles;
  }

  #labels(status: number, flags: string): string[] {
    // A status that no specification knows could be any of hundreds: its class stands for it.
    const code = status === 0 || CODES.has(status) ? `${status}` : `${Math.floor(status / 100)}xx`;
    return [...this.#parties, "http", code, "", flags, this.#security];
  }

  #make(status: number, flags: string): HttpHandles {
    const values = this.#labels(status, flags);
    const { requests, duration, requestBytes, responseBytes } = this.#telemetry.families;
    return {
      requests: requests.with(...values),
      duration: duration.with(...values),
      requestBytes: requestBytes.with(...values),
      responseBytes: responseBytes.with(...values),
    };
  }
}

/** HOT: the series of TCP connections of one pair of workloads. */
export interface TcpSeries {
  readonly sent: Counter;
  readonly received: Counter;
  readonly opened: Counter;
  readonly closed: Counter;
}

/** What is counted where a handshake or a connection is refused. */
export interface RefusalSeries {
  readonly connectionError: Counter;
  readonly noCertificate: Counter;
  readonly verifyError: Counter;
  readonly sanError: Counter;
  readonly plaintext: Counter;
}

const SHORT = [
  "source_workload",
  "source_workload_namespace",
  "destination_workload",
  "destination_workload_namespace",
];

export class Telemetry {
  readonly registry: Registry;
  readonly families: ReturnType<typeof makeFamilies>;
  readonly #http = new Map<string, HttpSeries>();
  readonly #tcp = new Map<string, TcpSeries>();

  constructor(registry: Registry = new Registry()) {
    this.registry = registry;
    this.families = makeFamilies(registry);
  }

  http(reporter: Reporter, source: Party | null, destination: Party | null, security: Security): HttpSeries {
    const parties = partyLabels(reporter, source ?? UNKNOWN, destination ?? UNKNOWN);
    const key = `${parties.join("\u0000")}\u0000${security}`;
    let series = this.#http.get(key);
    if (series === undefined) {
      series = new HttpSeries(this, parties, security);
      if (this.#http.size < MAX_PAIRS) {
        this.#http.set(key, series);
      }
    }
    return series;
  }

  tcp(reporter: Reporter, source: Party | null, destination: Party | null, security: Security): TcpSeries {
    const values = [...partyLabels(reporter, source ?? UNKNOWN, destination ?? UNKNOWN), "tcp", "-", security];
    const key = values.join("\u0000");
    let series = this.#tcp.get(key);
    if (series === undefined) {
      const { tcpSent, tcpReceived, tcpOpened, tcpClosed } = this.families;
      series = {
        sent: tcpSent.with(...values),
        received: tcpReceived.with(...values),
        opened: tcpOpened.with(...values),
        closed: tcpClosed.with(...values),
      };
      if (this.#tcp.size < MAX_PAIRS) {
        this.#tcp.set(key, series);
      }
    }
    return series;
  }

  /** `sourceName` is `unknown` at the destination: a peer whose handshake failed proved nothing. */
  refusals(source: Party | null, destination: Party | null): RefusalSeries {
    const from = source ?? UNKNOWN;
    const to = destination ?? UNKNOWN;
    const values = [from.name, from.namespace, to.name, to.namespace];
    const { sslError, noCertificate, verifyError, sanError, plaintext } = this.families;
    return {
      connectionError: sslError.with(...values),
      noCertificate: noCertificate.with(...values),
      verifyError: verifyError.with(...values),
      sanError: sanError.with(...values),
      plaintext: plaintext.with(...values),
    };
  }

  /** A denial by policy or kill; `policy` is bounded by the policies of the snapshot. */
  denial(
    source: Party | null,
    destination: Party,
    protocol: "http" | "tcp",
    reason: string,
    policy: string | null,
  ): Counter {
    const from = source ?? UNKNOWN;
    const { denials } = this.families;
    return denials.with(
      from.name,
      from.namespace,
      destination.name,
      destination.namespace,
      protocol,
      reason,
      policy ?? "",
    );
  }

  /** Bounded by the dry-run policies of the snapshot. */
  dryRun(
    source: Party | null,
    destination: Party,
    protocol: "http" | "tcp",
    { enforced, would, policy }: { readonly enforced: string; readonly would: string; readonly policy: string | null },
  ): Counter {
    const from = source ?? UNKNOWN;
    const parties = [from.name, from.namespace, destination.name, destination.namespace];
    return this.families.dryRuns.with(...parties, protocol, enforced, would, policy ?? "");
  }

  tcpDenied(source: Party | null, destination: Party): Counter {
    const from = source ?? UNKNOWN;
    return this.families.tcpDenied.with(from.name, from.namespace, destination.name, destination.namespace);
  }
}

const MAX_PAIRS = 2_000;

function makeFamilies(registry: Registry) {
  const http = [...HTTP, SECURITY];
  const counter = registry.counter.bind(registry);
  return {
    requests: counter("istio_requests_total", "Requests, by the two workloads and the answer.", http),
    duration: registry.histogram("istio_request_duration_milliseconds", "Time of requests.", http, MILLISECONDS),
    requestBytes: registry.histogram("istio_request_bytes", "Bytes of requests, heads included.", http, BYTES),
    responseBytes: registry.histogram("istio_response_bytes", "Bytes of answers, heads included.", http, BYTES),
    tcpSent: counter("istio_tcp_sent_bytes_total", "Bytes sent to the client of TCP connections.", TCP),
    tcpReceived: counter("istio_tcp_received_bytes_total", "Bytes received from the client of TCP connections.", TCP),
    tcpOpened: counter("istio_tcp_connections_opened_total", "TCP connections opened.", TCP),
    tcpClosed: counter("istio_tcp_connections_closed_total", "TCP connections closed.", TCP),
    sslError: counter("envoy_ssl_connection_error_total", "TLS handshakes that failed, for whatever reason.", SHORT),
    noCertificate: counter("envoy_ssl_fail_verify_no_cert_total", "Handshakes without a client certificate.", SHORT),
    verifyError: counter(
      "envoy_ssl_fail_verify_error_total",
      "Handshakes with a certificate that proves nothing.",
      SHORT,
    ),
    sanError: counter("envoy_ssl_fail_verify_san_total", "Servers that proved another identity than theirs.", SHORT),
    plaintext: counter("everyhop_plaintext_refused_total", "Plaintext connections to a STRICT port.", SHORT),
    tcpDenied: counter("everyhop_tcp_denied_total", "TCP connections closed by policy.", SHORT),
    denials: counter("everyhop_denials_total", "Denials, by reason and deciding policy.", [
      ...SHORT,
      "request_protocol",
      "reason",
      "policy",
    ]),
    dryRuns: counter(
      "istio_dry_run_decisions_total",
      "Decisions where dry-run policies are: what was decided, and what would be with all of them in force.",
      [...SHORT, "request_protocol", "enforced", "would", "policy"],
    ),
    closed: counter("everyhop_connections_closed_total", "Connections closed by the sidecar.", ["cause"]),
    dropped: counter("everyhop_records_dropped_total", "Denials and log lines dropped under load.", ["kind"]),
  };
}

const BYTES = MILLISECONDS;
