import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type HintFacts, hintFor, selectorMistake } from "./hint.ts";
import { parseSelector, type Selector } from "./selector.ts";
import { selectorParts, withoutSecrets } from "./selector-kinds.ts";

const RUNNING = [
  "unix:uid:0",
  "unix:user:root",
  "unix:gid:0",
  "unix:group:root",
  "unix:supplementary_gid:27",
  "unix:supplementary_group:sudo",
  "unix:path:/usr/bin/node",
  "unix:sha256:abc1",
  "unix:parent:path:/usr/bin/bash",
  "unix:process:7:100",
];
const IN_POD = [
  "k8s:ns:production",
  "k8s:pod-label:app:shop",
  "k8s:pod-label:tier:web",
  "k8s:container-image:docker.io/library/nginx:1.27",
];
const CHANGED = "2026-11-25T09:00:00.000Z";
const ran = (...kinds: readonly string[]): HintFacts => ({
  attestors: kinds.map((kind) => ({ kind, error: null })),
  programChangedAt: CHANGED,
});

/** Missing selector, found ones, facts, what the hint says. */
const TABLE: readonly (readonly [string, readonly string[], HintFacts, RegExp])[] = [
  ["unx:uid:0", RUNNING, ran("unix"), /no attestor finds selectors of the type `unx`: did you mean `unix`\?/],
  ["x509pop:subject:cn:a", RUNNING, ran("unix"), /of nodes, and no workload has one/],
  ["unix:usr:root", RUNNING, ran("unix"), /no selectors `usr`: did you mean `unix:user:…`\?/],
  ["k8s:namespce:a", IN_POD, ran("k8s"), /did you mean `k8s:namespace:…`/],
  ["docker:label:app:x", RUNNING, ran("unix"), /this agent has no `docker` attestor: add `docker: \{\}`/],
  [
    "k8s:ns:a",
    RUNNING,
    { attestors: [{ kind: "k8s", error: "the kubelet refuses: 401" }] },
    /the `k8s` attestor failed: the kubelet refuses/,
  ],
  ["k8s:ns:a", RUNNING, ran("unix", "k8s"), /in no pod/],
  ["docker:label:app:x", RUNNING, ran("unix", "docker"), /in no container/],
  ["systemd:id:web.service", RUNNING, ran("unix", "systemd"), /no systemd unit/],
  ["unix:sha256:ABC1", RUNNING, ran("unix"), /differs in capitals alone: the workload has `abc1`/],
  ["unix:user: root", RUNNING, ran("unix"), /differs in white space alone/],
  ["unix:uid:1000", RUNNING, ran("unix"), /^the process runs as root \(uid 0\)$/],
  ["unix:user:web", RUNNING, ran("unix"), /^the process runs as root \(uid 0\)$/],
  ["unix:uid:1000", ["unix:uid:77"], ran("unix"), /runs as uid 77, which has no name on this machine/],
  ["unix:uid:root", RUNNING, ran("unix"), /a uid is a number: for a name write `unix:user:root`/],
  ["unix:user:0", RUNNING, ran("unix"), /`0` is a number: write `unix:uid:0`/],
  ["unix:gid:27", RUNNING, ran("unix"), /as a supplementary group: write `unix:supplementary_gid:27`/],
  ["unix:group:sudo", RUNNING, ran("unix"), /write `unix:supplementary_group:sudo`/],
  ["unix:supplementary_gid:0", RUNNING, ran("unix"), /primary group: write `unix:gid:0`/],
  [
    "unix:path:/usr/local/bin/node",
    RUNNING,
    ran("unix"),
    /it runs \/usr\/bin\/node, registered is \/usr\/local\/bin\/node/,
  ],
  ["unix:path:/srv/app.mjs", RUNNING, ran("unix"), /a script is `unix:script:\/srv\/app\.mjs`/],
  ["unix:path:node", RUNNING, ran("unix"), /a path is absolute/],
  ["unix:path:/usr/bin/node", ["unix:uid:0"], ran("unix"), /removed or replaced since it started/],
  ["unix:parent:path:/usr/bin/init", RUNNING, ran("unix"), /its parent runs \/usr\/bin\/bash/],
  ["unix:sha256:ffff", RUNNING, ran("unix"), /node, last changed 2026-11-25T09:00:00.000Z has another digest/],
  ["unix:sha256:ffff", ["unix:uid:0"], ran("unix"), /larger than `workloadSizeLimit`/],
  ["unix:script:/srv/app.mjs", RUNNING, ran("unix"), /names no script/],
  ["unix:script:/srv/app", ["unix:path:/srv/app"], ran("unix"), /no interpreter: write `unix:path:\/srv\/app`/],
  ["unix:process:8:100", RUNNING, ran("unix"), /another process, or an earlier one/],
  ["k8s:container-image:nginx:1.27", IN_POD, ran("k8s"), /write `k8s:container-image:docker.io\/library\/nginx:1.27`/],
  ["k8s:pod-label:app:web", IN_POD, ran("k8s"), /its pod-label `app` is `shop`/],
  ["k8s:pod-label:ap:shop", IN_POD, ran("k8s"), /it has no pod-label `ap`: did you mean `app`\?/],
  ["docker:env:MODE=test", ["docker:env:MODE=hunter2"], ran("docker"), /^its `MODE` has another value$/],
  ["unix:path:/usr/bin/web", ["unix:uid:0"], { attestors: null }, /not among the selectors given/],
  ["k8s:ns:staging", IN_POD, ran("k8s"), /its ns is `production`/],
];

test("what is likely wrong, and what to write instead", () => {
  for (const [missing, found, facts, expected] of TABLE) {
    assert.match(hintFor(parseSelector(missing), found.map(parseSelector), facts), expected, missing);
  }
});

test("what no workload could have is told without one", () => {
  assert.match(selectorMistake(parseSelector("unix:usr:root")) ?? "", /did you mean/);
  assert.match(selectorMistake(parseSelector("spiffe_id:spiffe://a/b")) ?? "", /of nodes/);
  assert.equal(selectorMistake(parseSelector("unix:uid:0")), null);
  assert.equal(selectorMistake(parseSelector("k8s:pod-label:a:b")), null);
});

test("any selectors have a hint of one line", () => {
  const selector = fc
    .tuple(
      fc.constantFrom("unix", "k8s", "docker", "unx", "constructor"),
      fc.constantFrom("uid", "path", "pod-label", "env", "__proto__", ""),
      fc.string(),
    )
    .map(([type, kind, value]) => `${type}:${kind}:${value}` as Selector);
  fc.assert(
    fc.property(selector, fc.array(selector, { maxLength: 5 }), (missing, found) => {
      assert.ok(hintFor(missing, found, { attestors: null }).length > 0);
    }),
  );
});

test("a selector's parts, and what of it may be in a log", () => {
  const parts = (text: string) => Object.values(selectorParts(parseSelector(text)));
  assert.deepEqual(parts("unix:script:sha256:ab"), ["unix", "script:sha256", "", "ab"]);
  assert.deepEqual(parts("unix:script:/a:b"), ["unix", "script", "", "/a:b"]);
  assert.deepEqual(parts("unix:parent:process:1:2"), ["unix", "parent:process", "", "1:2"]);
  assert.deepEqual(parts("k8s:pod-label:a:b:c"), ["k8s", "pod-label", "a", "b:c"]);
  assert.deepEqual(parts("docker:env:A=b=c"), ["docker", "env", "A", "b=c"]);
  assert.deepEqual(parts("x:y"), ["x", "", "", "y"]);
  assert.equal(withoutSecrets(parseSelector("docker:env:PASSWORD=hunter2\nx")), "docker:env:PASSWORD=…");
  assert.equal(withoutSecrets(parseSelector("unix:path:/a=b")), "unix:path:/a=b");
});
