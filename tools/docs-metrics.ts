/** docs/metrics.md: every metric the processes serve, with its labels, as they define them. */
import { Registry as PromRegistry } from "prom-client";
import { controlMetrics, registerGauges } from "../src/control/metrics.ts";
import { markdownTable } from "./markdown.ts";

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly labels: readonly string[];
}

/** What prom-client's metrics hold beside their public types. */
interface PromMetric {
  readonly name: string;
  readonly help: string;
  readonly type?: unknown;
  readonly labelNames?: readonly string[];
}

async function serverMetrics(): Promise<Metric[]> {
  const registry = new PromRegistry();
  controlMetrics(registry);
  registerGauges(registry, {
    worldVersion: () => 0,
    proxies: () => ({}),
    problems: () => 0,
    kills: () => 0,
    identities: () => [],
  });
  const types = new Map((await registry.getMetricsAsJSON()).map(({ name, type }) => [name, String(type)]));
  return (registry.getMetricsAsArray() as readonly PromMetric[]).map(({ name, help, labelNames = [] }) => ({
    name,
    help,
    type: types.get(name) ?? "",
    labels: labelNames,
  }));
}

function section(title: string, metrics: readonly Metric[]): string {
  const rows = metrics.map(({ name, type, labels, help }) => [
    `\`${name}\``,
    type,
    labels.map((label) => `\`${label}\``).join(" "),
    help,
  ]);
  return `## ${title}\n\n${markdownTable(["metric", "type", "labels", "what it counts"], rows)}\n`;
}

export async function metricsDocument(): Promise<string> {
  return `# Metrics

In Prometheus text at \`/metrics\`. How to scrape a mesh and what to alert on is in [observe.md](observe.md).

${section("Server", await serverMetrics())}`;
}
