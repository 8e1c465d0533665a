/** What the files of SPIRE's server and agent have in common. */
import {
  type Block,
  block,
  differs,
  flag,
  hostPort,
  type Rule,
  type Rules,
  type Source,
  text,
  to,
  valueAt,
  whole,
} from "./translation.ts";

/** SPIRE's spellings of logrus's levels. */
const LEVELS: Readonly<Record<string, string>> = {
  trace: "debug",
  debug: "debug",
  info: "info",
  warn: "warn",
  warning: "warn",
  error: "error",
  fatal: "error",
  panic: "error",
};

const logLevel: Rule = (value, at) => {
  const given = text(value, at);
  if (given === undefined) {
    return;
  }
  const level = Object.hasOwn(LEVELS, given.toLowerCase()) ? LEVELS[given.toLowerCase()] : undefined;
  if (level === undefined) {
    at.error(`\`${given}\` is no log level`, "use DEBUG, INFO, WARN or ERROR");
  } else {
    at.set(["logLevel"], level);
  }
};

/** Keys of both `server` and `agent`. */
export const LOGGING: Rules = {
  log_level: logLevel,
  log_file: differs("the log goes to standard error", "redirect it, or let systemd keep it"),
  log_format: (value, at) => {
    if (text(value, at)?.toLowerCase() !== "json") {
      at.info("the log is always JSON, a line each");
    }
  },
  log_source_location: differs("a line says its part and its message"),
  profiling_enabled: differs("use Node's inspector", "`NODE_OPTIONS=--cpu-prof`"),
  profiling_port: differs("use Node's inspector"),
  profiling_freq: differs("use Node's inspector"),
  profiling_names: differs("use Node's inspector"),
};

/** `health_checks { listener_enabled = true … }`. */
export const healthChecks: Rule = (value, at) => {
  const enabled = valueAt(value, at, "listener_enabled");
  const on = enabled !== null && flag(...enabled) === true;
  const path = (field: string): Rule => (on ? to(["health", field], text) : () => {});
  block({
    listener_enabled: () => {},
    bind_address: () => {},
    bind_port: () => {},
    live_path: path("livePath"),
    ready_path: path("readyPath"),
  })(value, at);
  if (on) {
    const address = valueAt(value, at, "bind_address");
    const port = valueAt(value, at, "bind_port");
    const host = address === null ? "localhost" : (text(...address) ?? "");
    (address ?? port ?? enabled)[1].set(
      ["health", "listen"],
      hostPort(host, port === null ? 80 : (whole(...port) ?? 0)),
    );
  }
};

/** `telemetry { Prometheus { host port } }`: `metrics` is the field that the address becomes. */
export function telemetry(metrics: string): Rule {
  const prometheus: Rule = (value, at) => {
    block({ host: () => {}, port: () => {}, tls: differs("metrics are plain HTTP: listen on loopback") })(value, at);
    const host = valueAt(value, at, "host");
    const port = valueAt(value, at, "port");
    if (port === null) {
      at.error("`port` is missing");
      return;
    }
    const name = host === null ? "localhost" : (text(...host) ?? "");
    port[1].set([metrics], hostPort(name, whole(...port) ?? 0));
  };
  const only = differs("metrics are Prometheus's alone", "scrape `/metrics`: docs/metrics.md");
  const all = differs("metrics keep their names and labels: docs/metrics.md");
  return block({
    Prometheus: prometheus,
    DogStatsd: only,
    Statsd: only,
    M3: only,
    InMem: () => {},
    MetricPrefix: all,
    EnableTrustDomainLabel: all,
    EnableHostnameLabel: all,
    AllowedPrefixes: all,
    BlockedPrefixes: all,
    AllowedLabels: all,
    BlockedLabels: all,
  });
}

/** `everyhop { … }`: fields of our own file, by their own names, in a file that is else SPIRE's. */
export const ownBlock: Rule = (value, at) => {
  for (const [key, inner] of Object.entries((value ?? {}) as Block)) {
    at.into(key).set([key], inner);
  }
};

/** The block `plugins`, which the published guides also put inside of `server` or `agent`, where SPIRE does not look for it. */
export function misplaced(plugins: Rule, inside: string): Rule {
  return (value, at: Source) => {
    at.warn(
      `\`plugins\` stands inside of \`${inside}\`, where SPIRE refuses it; it is read all the same`,
      `move the block out of \`${inside} { … }\`, beside it`,
    );
    plugins(value, at);
  };
}
