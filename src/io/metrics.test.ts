import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "./metrics.ts";

test("metrics are written as Prometheus reads them", () => {
  const registry = new Registry();
  const requests = registry.counter("requests_total", "Requests.", ["code", "path"]);
  requests.with("200", '/a"b\\c\nd').value += 3;
  requests.with("200", '/a"b\\c\nd').value++;
  registry.gauge("up", "Up.").with().value = 1;
  const seconds = registry.histogram("seconds", "Time.", ["code"], [1, 5]).with("200");
  for (const value of [0.5, 1, 3, 100]) {
    seconds.observe(value);
  }
  let scrapes = 0;
  registry.collect(() => {
    scrapes++;
  });
  assert.equal(
    registry.text(),
    `# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code="200",path="/a\\"b\\\\c\\nd"} 4
# HELP up Up.
# TYPE up gauge
up 1
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{code="200",le="1"} 2
seconds_bucket{code="200",le="5"} 3
seconds_bucket{code="200",le="+Inf"} 4
seconds_sum{code="200"} 104.5
seconds_count{code="200"} 4
`,
  );
  assert.equal(scrapes, 1);
});

test("the series of a family are bounded", () => {
  const registry = new Registry();
  const family = registry.counter("x", "X.", ["who"]);
  for (let i = 0; i < 10_000; i++) {
    family.with(`${i}`).value++;
  }
  assert.equal([...family.entries()].length, 5_001);
  assert.equal(family.with("overflow").value, 5_000);
});
