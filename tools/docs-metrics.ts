/** docs/metrics.md: every metric the processes serve, with its labels, as they define them. */
import { Registry as PromRegistry } from "prom-client";
import { controlMetrics, registerGauges } from "../src/control/metrics.ts";
import type { RunningAgent } from "../src/identity/agent/agent.ts";
import { identityMetrics, registerIdentityGauges } from "../src/identity/server/metrics.ts";
import { Telemetry } from "../src/proxy/telemetry.ts";
import { agentMetrics } from "../src/run/agent-metrics.ts";
import { sidecarGauges } from "../src/run/proxy-metrics.ts";
import { registerSignerGauges } from "../src/run/server-signer.ts";
import { markdownTable } from "./markdown.ts";

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly labels: readonly string[];
}

function serverMetrics(): Metric[] {
  const registry = new PromRegistry();
  controlMetrics(registry);
  registerGauges(registry, {
    worldVersion: () => 0,
    proxies: () => ({}),
    problems: () => 0,
    kills: () => 0,
    identities: () => [],
  });
  identityMetrics(registry);
  registerSignerGauges(registry, () => ({ running: true, restarts: 0 }));
  registerIdentityGauges(registry, {
    databaseUp: () => 0,
    agents: () => 0,
    entries: () => 0,
    caExpiry: () => 0,
    caBegin: () => 0,
    bundleSequence: () => 0,
    federation: () => new Map(),
  });
  return describe(registry);
}

/** What prom-client's metrics hold beside their public types. */
interface PromMetric {
  readonly name: string;
  readonly help: string;
  readonly labelNames?: readonly string[];
}

/** The metrics of a registry but those of the runtime; nothing is read. */
function describe(registry: PromRegistry): Metric[] {
  return (registry.getMetricsAsArray() as readonly PromMetric[])
    .filter(({ name }) => !/^(process|nodejs)_/.test(name))
    .map((metric) => ({
      name: metric.name,
      help: metric.help,
      type: metric.constructor.name.toLowerCase(),
      labels: metric.labelNames ?? [],
    }));
}

/** One series of each family is made, so that the text shows its labels. */
function sidecarMetrics(): Metric[] {
  const telemetry = new Telemetry();
  sidecarGauges(telemetry.registry, {
    snapshotVersion: () => 0,
    connected: () => false,
    svidNotAfter: () => 0,
    connections: () => 0,
  });
  for (const family of Object.values(telemetry.families)) {
    family.with();
  }
  const text = telemetry.registry.text();
  return [...text.matchAll(/^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)\n(?:\S+?\{(.*)\} )?/gm)].map(
    ([, name = "", help = "", type = "", labels = ""]) => ({
      name,
      help,
      type,
      labels: [...labels.matchAll(/(\w+)="/g)].map((match) => match[1] as string).filter((label) => label !== "le"),
    }),
  );
}

/** Labels that every metric with many of them has: they are said once. */
function partyLabels(metrics: readonly Metric[]): readonly string[] {
  const many = metrics.filter(({ labels }) => labels.length > 8);
  return many[0]?.labels.filter((label) => many.every(({ labels }) => labels.includes(label))) ?? [];
}

const code = (words: readonly string[]): string => words.map((word) => `\`${word}\``).join(" ");

function section(title: string, metrics: readonly Metric[]): string {
  const parties = partyLabels(metrics);
  const rows = metrics.map(({ name, type, labels, help }) => {
    const all = parties.length > 0 && parties.every((label) => labels.includes(label));
    const own = code(all ? labels.filter((label) => !parties.includes(label)) : labels);
    return [`\`${name}\``, type, all ? `*both parties*, ${own}` : own, help];
  });
  const note = parties.length === 0 ? "" : `*Both parties* are the labels ${code(parties)}.\n\n`;
  return `## ${title}\n\n${note}${markdownTable(["metric", "type", "labels", "what it is"], rows)}\n`;
}

export function metricsDocument(): string {
  return `# Metrics

In Prometheus text at \`/metrics\` of each process, beside the runtime's own (\`process_*\`, \`nodejs_*\`). How to scrape a mesh and what
to alert on is in [observe.md](observe.md).

${section("Sidecar", sidecarMetrics())}
${section("Server", serverMetrics())}
${section("Agent", describe(agentMetrics({} as RunningAgent)))}`;
}
