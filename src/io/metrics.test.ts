import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "./metrics.ts";

test("series are resolved once, start at 0, and are written as Prometheus reads them", () => {
  const registry = new Registry();
  const family = registry.counter("requests_total", "Requests.", ["path"]);
  const series = family.with('a"\\\n');
  assert.match(registry.text(), /^requests_total\{path="a\\"\\\\\\n"\} 0$/m);
  series.value += 2;
  assert.equal(family.with('a"\\\n'), series);
  const times = registry.histogram("ms", "Time.", [], [1, 5]).with();
  times.observe(1);
  times.observe(7);
  assert.match(
    registry.text(),
    /^ms_bucket\{le="1"\} 1\nms_bucket\{le="5"\} 1\nms_bucket\{le="\+Inf"\} 2\nms_sum 8\nms_count 2$/m,
  );
});

test("INVARIANT: labels are bounded: what is too many becomes one series", () => {
  const registry = new Registry();
  const family = registry.counter("denials_total", "Denials.", ["source", "path"]);
  for (let index = 0; index < 20_000; index++) {
    family.with(`attacker-${index}`, "/").value++;
  }
  const lines = registry
    .text()
    .split("\n")
    .filter((line) => line.startsWith("denials_total{"));
  assert.ok(lines.length <= 5_001, `${lines.length} series`);
  const total = lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  assert.equal(total, 20_000, "nothing is lost");
  assert.ok(lines.some((line) => line.includes('source="overflow",path="overflow"')));
});
