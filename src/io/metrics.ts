/**
 * Metrics in Prometheus text. A series is a handle that is resolved once and then costs an addition. INVARIANT: labels are
 * bounded: beyond `MAX_SERIES` of a family all further ones are one series whose labels say `overflow`.
 */

const MAX_SERIES = 5_000;

export interface Counter {
  value: number;
}

export interface Gauge {
  value: number;
}

export class Histogram {
  readonly bounds: readonly number[];
  readonly counts: Float64Array;
  sum = 0;
  count = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length);
  }

  /** HOT. */
  observe(value: number): void {
    const { bounds } = this;
    this.sum += value;
    this.count++;
    for (let i = 0; i < bounds.length; i++) {
      if (value <= bounds[i]!) {
        this.counts[i]!++;
        return;
      }
    }
  }
}

type Kind = "counter" | "gauge" | "histogram";

/** All series of one name. */
export class Family<S> {
  readonly name: string;
  readonly help: string;
  readonly kind: Kind;
  readonly #labels: readonly string[];
  readonly #make: () => S;
  readonly #series = new Map<string, { text: string; series: S }>();

  constructor(kind: Kind, name: string, help: string, labels: readonly string[], make: () => S) {
    this.kind = kind;
    this.name = name;
    this.help = help;
    this.#labels = labels;
    this.#make = make;
  }

  /** The series with these label values, in the order of the family's labels; made at 0 where it is new. */
  with(...values: readonly string[]): S {
    const key = values.join("\u0000");
    const found = this.#series.get(key);
    if (found !== undefined) {
      return found.series;
    }
    if (this.#series.size >= MAX_SERIES && values.some((value) => value !== "overflow")) {
      return this.with(...this.#labels.map(() => "overflow"));
    }
    const text = this.#labels.map((label, index) => `${label}="${escapeLabel(values[index] ?? "")}"`).join(",");
    const series = this.#make();
    this.#series.set(key, { text, series });
    return series;
  }

  *entries(): Iterable<{ text: string; series: S }> {
    yield* this.#series.values();
  }
}

export class Registry {
  readonly #families: Family<unknown>[] = [];
  readonly #collectors: (() => void)[] = [];

  counter(name: string, help: string, labels: readonly string[] = []): Family<Counter> {
    return this.#add(new Family<Counter>("counter", name, help, labels, () => ({ value: 0 })));
  }

  gauge(name: string, help: string, labels: readonly string[] = []): Family<Gauge> {
    return this.#add(new Family<Gauge>("gauge", name, help, labels, () => ({ value: 0 })));
  }

  histogram(name: string, help: string, labels: readonly string[], bounds: readonly number[]): Family<Histogram> {
    return this.#add(new Family("histogram", name, help, labels, () => new Histogram(bounds)));
  }

  /** Called before each scrape, to set gauges. */
  collect(collector: () => void): void {
    this.#collectors.push(collector);
  }

  #add<S>(family: Family<S>): Family<S> {
    this.#families.push(family as Family<unknown>);
    return family;
  }

  /** Content type `text/plain; version=0.0.4`. */
  text(): string {
    for (const collector of this.#collectors) {
      collector();
    }
    const lines: string[] = [];
    for (const family of this.#families) {
      lines.push(`# HELP ${family.name} ${family.help}`, `# TYPE ${family.name} ${family.kind}`);
      for (const { text, series } of family.entries()) {
        if (series instanceof Histogram) {
          writeHistogram(lines, family.name, text, series);
        } else {
          lines.push(`${family.name}${text === "" ? "" : `{${text}}`} ${(series as Counter).value}`);
        }
      }
    }
    return `${lines.join("\n")}\n`;
  }
}

function writeHistogram(lines: string[], name: string, text: string, series: Histogram): void {
  const separator = text === "" ? "" : ",";
  let total = 0;
  series.bounds.forEach((bound, index) => {
    total += series.counts[index]!;
    lines.push(`${name}_bucket{${text}${separator}le="${bound}"} ${total}`);
  });
  lines.push(`${name}_bucket{${text}${separator}le="+Inf"} ${series.count}`);
  const labels = text === "" ? "" : `{${text}}`;
  lines.push(`${name}_sum${labels} ${series.sum}`, `${name}_count${labels} ${series.count}`);
}

function escapeLabel(value: string): string {
  return value.replace(/[\\"\n]/g, (char) => (char === "\n" ? "\\n" : `\\${char}`));
}

/** `process_*` as the Prometheus client libraries name them. */
export function processMetrics(registry: Registry): void {
  const cpu = registry.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.").with();
  const memory = registry.gauge("process_resident_memory_bytes", "Resident memory size in bytes.").with();
  const heap = registry.gauge("nodejs_heap_size_used_bytes", "Heap in use, in bytes.").with();
  const started = registry.gauge("process_start_time_seconds", "Start time since the epoch in seconds.").with();
  started.value = Math.round(performance.timeOrigin) / 1_000;
  registry.collect(() => {
    const { user, system } = process.cpuUsage();
    cpu.value = (user + system) / 1e6;
    const usage = process.memoryUsage();
    memory.value = usage.rss;
    heap.value = usage.heapUsed;
  });
}
