import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { applyPatch, type PatchOperation } from "../../base/json-patch.ts";
import { exportJwk } from "../../jose/jwk.ts";
import { signJws } from "../../jose/jws.ts";
import { type Answer, Decider } from "../decide.ts";
import { readDecisionRequest } from "../decision-request.ts";
import { DEFAULT_MESH_CONFIG } from "../mesh-config.ts";
import { parseResources } from "../parse.ts";

type Document = Readonly<Record<string, unknown>> & {
  readonly kind: string;
  readonly metadata: { name: string; namespace?: string };
};

const NOW = Date.UTC(2030, 0, 1);

/** Decides as a user would: from the text of the documents. */
function decide(documents: readonly Document[], request: unknown): Answer {
  const text = documents.map((document) => JSON.stringify(document)).join("\n---\n");
  const { resources, issues } = parseResources([{ file: "p.yaml", text }]);
  assert.deepEqual(
    issues.filter(({ severity }) => severity === "error"),
    [],
    text,
  );
  const decider = new Decider(resources, { trustDomain: "td", meshConfig: DEFAULT_MESH_CONFIG }, { now: () => NOW });
  return decider.decide(readDecisionRequest(request), { explain: true });
}

type Change = NonNullable<Answer["changes"]>[number];

/** The documents as they were written, with patches applied to those named. */
function patchAll(
  documents: readonly Document[],
  changes: readonly Pick<Change, "kind" | "policy" | "patch">[],
): Document[] {
  return documents.map((document) => {
    const name = `${document.metadata.namespace ?? "default"}/${document.metadata.name}`;
    const own = changes.filter(({ kind, policy }) => kind === document.kind && policy === name);
    return own.reduce<Document>((given, { patch }) => {
      const next = applyPatch(given, patch);
      assert.notEqual(next, null, `the patch does not fit ${JSON.stringify(given)}: ${JSON.stringify(patch)}`);
      return next as Document;
    }, document);
  });
}

const policy = (name: string, spec: unknown, namespace = "prod"): Document => ({
  apiVersion: "security.istio.io/v1",
  kind: "AuthorizationPolicy",
  metadata: { name, namespace },
  ...(spec === undefined ? {} : { spec }),
});
const peerAuthentication = (spec: unknown, namespace = "prod"): Document => ({
  apiVersion: "security.istio.io/v1",
  kind: "PeerAuthentication",
  metadata: { name: "peer", namespace },
  spec,
});

const CALLER = "td/ns/prod/sa/web";
const GET = {
  source: { principal: CALLER, ip: "10.0.0.1" },
  destination: { namespace: "prod", labels: { app: "shop" }, port: 80 },
  request: { method: "GET", path: "/a?x=1", headers: { "x-user": "bob" } },
};
const PLAINTEXT = { ...GET, source: { ip: "10.0.0.1" } };
const TCP = { source: GET.source, destination: GET.destination };

interface Row {
  readonly name: string;
  readonly documents: readonly Document[];
  readonly request: unknown;
  readonly reason: string;
  /** Of each change, what it would; empty: nothing helps. */
  readonly would: readonly RegExp[];
}

const to = (operation: unknown) => ({ to: [{ operation }] });
const rows: readonly Row[] = [
  {
    name: "a method that is missing",
    documents: [policy("p", { rules: [{ ...to({ methods: ["POST"], paths: ["/a"] }) }] })],
    request: GET,
    reason: "no-allow-matched",
    would: [/^be allowed if `methods` included `GET`$/],
  },
  {
    name: "a header's value",
    documents: [policy("p", { rules: [{ when: [{ key: "request.headers[x-user]", values: ["alice"] }] }] })],
    request: GET,
    reason: "no-allow-matched",
    would: [/`values` of `request.headers\[x-user\]` included `bob`/],
  },
  {
    name: "a value that is excluded",
    documents: [policy("p", { rules: [{ ...to({ paths: ["/*"], notPaths: ["/b", "/a"] }) }] })],
    request: GET,
    reason: "no-allow-matched",
    would: [/`notPaths` left out `\/a`/],
  },
  {
    name: "an ALLOW policy without rules",
    documents: [policy("p", { selector: { matchLabels: { app: "shop" } } }), policy("root", {}, "istio-system")],
    request: GET,
    reason: "no-allow-matched",
    would: [/a rule let `td\/ns\/prod\/sa\/web` reach `GET \/a`/],
  },
  {
    name: "an ALLOW policy without a spec",
    documents: [policy("p", undefined)],
    request: TCP,
    reason: "no-allow-matched",
    would: [/reach port 80/],
  },
  {
    name: "an ALLOW policy without rules, for a caller that proved nothing",
    documents: [policy("p", {})],
    request: PLAINTEXT,
    reason: "no-allow-matched",
    would: [/a rule let `10.0.0.1` reach/],
  },
  {
    name: "a rule that is not near: one of its own",
    documents: [
      policy("p", {
        rules: [{ from: [{ source: { principals: ["td/x"] } }], ...to({ methods: ["PUT"], paths: ["/x"] }) }],
      }),
    ],
    request: GET,
    reason: "no-allow-matched",
    would: [/a rule let `td\/ns\/prod\/sa\/web` reach `GET \/a`/],
  },
  {
    name: "a DENY rule",
    documents: [policy("d", { action: "DENY", rules: [to({ paths: ["/a"] })] })],
    request: GET,
    reason: "deny-rule",
    would: [/`notPrincipals` included `td\/ns\/prod\/sa\/web`/],
  },
  {
    name: "two DENY rules of one policy",
    documents: [policy("d", { action: "DENY", rules: [to({ paths: ["/a"] }), to({ methods: ["GET"] })] })],
    request: GET,
    reason: "deny-rule",
    would: [/notPrincipals/],
  },
  {
    name: "a DENY rule that names service accounts",
    documents: [policy("d", { action: "DENY", rules: [{ from: [{ source: { serviceAccounts: ["web"] } }] }] })],
    request: GET,
    reason: "deny-rule",
    would: [/`notServiceAccounts` included `prod\/web`/],
  },
  {
    name: "a DENY rule for whoever proves nothing",
    documents: [policy("d", { action: "DENY", rules: [{ from: [{ source: { notPrincipals: ["*"] } }] }] })],
    request: PLAINTEXT,
    reason: "deny-rule",
    would: [/`notPaths` included `\/a`/],
  },
  {
    name: "DENY and then no ALLOW: both, together",
    documents: [
      policy("d", { action: "DENY", rules: [{ from: [{ source: { notPrincipals: ["td/x"] } }] }] }),
      policy("p", { rules: [{ from: [{ source: { principals: ["td/x"] } }] }] }),
    ],
    request: GET,
    reason: "deny-rule",
    would: [/notPrincipals/, /`principals` included/],
  },
  {
    name: "plaintext where the mesh is STRICT",
    documents: [peerAuthentication({ mtls: { mode: "STRICT" } }, "istio-system")],
    request: PLAINTEXT,
    reason: "plaintext-refused",
    would: [/^be accepted if the caller used mutual TLS, or `mtls.mode` were `PERMISSIVE`$/],
  },
  {
    name: "plaintext at a STRICT port, and then no ALLOW",
    documents: [
      peerAuthentication({
        selector: { matchLabels: { app: "shop" } },
        mtls: { mode: "PERMISSIVE" },
        portLevelMtls: { 80: { mode: "STRICT" } },
      }),
      policy("p", {}),
    ],
    request: PLAINTEXT,
    reason: "plaintext-refused",
    would: [/`portLevelMtls.80.mode` were/, /a rule let `10.0.0.1`/],
  },
  {
    name: "mutual TLS where it is DISABLE",
    documents: [peerAuthentication({ mtls: { mode: "DISABLE" } })],
    request: GET,
    reason: "plaintext-refused",
    would: [/the caller used no TLS/],
  },
];

for (const { name, documents, request, reason, would } of rows) {
  test(`nearest: ${name}`, () => {
    const answer = decide(documents, request);
    assert.equal(answer.reason, reason);
    const changes = answer.changes ?? [];
    assert.equal(changes.length, would.length, JSON.stringify(changes));
    for (const [index, pattern] of would.entries()) {
      assert.match(changes[index]?.would ?? "", pattern);
    }
    assert.deepEqual(answer.nearestMiss, changes.length === 1 ? changes[0] : null);
    assert.equal(decide(patchAll(documents, changes), request).decision, "allow");
  });
}

const key = generateKeyPairSync("ec", { namedCurve: "P-256" });
const jwks = JSON.stringify({ keys: [exportJwk(key.publicKey, { kid: "k" })] });

function token(claims: object): string {
  return signJws({ alg: "ES256", kid: "k" }, JSON.stringify(claims), key.privateKey);
}

const tokens = (rule: object): Document => ({
  apiVersion: "security.istio.io/v1",
  kind: "RequestAuthentication",
  metadata: { name: "jwt", namespace: "prod" },
  spec: { jwtRules: [{ issuer: "i", jwks, ...rule }] },
});

const tokenRows: readonly (readonly [name: string, claims: object, fault: string, would: RegExp | null])[] = [
  ["another audience", { iss: "i", sub: "a", aud: ["x", "y"] }, "wrong-audience", /`audiences` included `x`/],
  [
    "another issuer with the same keys",
    { iss: "j", sub: "a", aud: "shop" },
    "unknown-issuer",
    /tokens of the issuer `j`/,
  ],
  ["expired", { iss: "i", sub: "a", aud: "shop", exp: 1 }, "expired", null],
];
for (const [name, claims, fault, would] of tokenRows) {
  test(`nearest: a token that is refused: ${name}`, () => {
    const documents = [tokens({ audiences: ["shop"] })];
    const request = { ...GET, request: { ...GET.request, token: token(claims) } };
    const answer = decide(documents, request);
    assert.deepEqual([answer.reason, answer.tokenFault], ["bad-token", fault]);
    if (would === null) {
      assert.deepEqual(answer.changes, []);
      return;
    }
    assert.match(answer.nearestMiss?.would ?? "", would);
    assert.equal(decide(patchAll(documents, answer.changes ?? []), request).decision, "allow");
  });
}

const some = (...items: readonly string[]) => fc.uniqueArray(fc.constantFrom(...items), { minLength: 1, maxLength: 3 });
const anyOf = (fields: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record(fields, { requiredKeys: [] }).filter((given) => Object.keys(given).length > 0);
const principals = some("*", "td/ns/prod/sa/web", "td/ns/prod/sa/*", "x/y", "*web");
const source = anyOf({
  principals,
  notPrincipals: principals,
  ipBlocks: some("10.0.0.0/24", "10.0.0.1", "192.0.2.0/24"),
  notIpBlocks: some("10.0.0.1", "::/0"),
  remoteIpBlocks: some("10.0.0.1", "1.2.3.4"),
});
const operation = anyOf({
  methods: some("GET", "POST"),
  notMethods: some("PUT", "POST"),
  paths: some("/a", "/b*", "*c", "/{*}/x"),
  notPaths: some("/a", "/ab", "/z"),
  ports: some("80", "5432"),
  hosts: some("shop", "*"),
});
const condition = fc.oneof(
  anyOf({ values: some("bob", "al*"), notValues: some("bob", "eve") }).map((given) => ({
    key: "request.headers[x-user]",
    ...given,
  })),
  some("prod", "other").map((values) => ({ key: "source.namespace", values })),
);
const rule = fc.record(
  {
    from: fc.array(
      source.map((each) => ({ source: each })),
      { minLength: 1, maxLength: 2 },
    ),
    to: fc.array(
      operation.map((each) => ({ operation: each })),
      { minLength: 1, maxLength: 2 },
    ),
    when: fc.array(condition, { minLength: 1, maxLength: 2 }),
  },
  { requiredKeys: [] },
);
const spec = fc.oneof(
  { weight: 3, arbitrary: fc.record({ action: fc.constant("ALLOW"), rules: fc.array(rule, { maxLength: 2 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({ action: fc.constant("DENY"), rules: fc.array(rule, { minLength: 1, maxLength: 2 }) }),
  },
);
const mesh = fc.record({
  policies: fc.array(fc.tuple(spec, fc.constantFrom("prod", "istio-system")), { minLength: 1, maxLength: 3 }),
  mode: fc.constantFrom(null, null, "STRICT", "DISABLE"),
});
const requestOf = fc.record({
  source: fc.record({
    principal: fc.constantFrom(CALLER, null, "x/y"),
    ip: fc.constantFrom("10.0.0.1", "192.0.2.7", "2001:db8::1"),
  }),
  destination: fc.constantFrom(GET.destination, { namespace: "prod", port: 5432 }),
  request: fc.option(
    fc.record({
      method: fc.constantFrom("GET", "POST", "PUT"),
      path: fc.constantFrom("/a", "/ab?q", "/b/c", "/x/../z"),
      host: fc.constantFrom("shop", "other"),
      headers: fc.constantFrom({}, { "x-user": "bob" }, { "x-user": ["eve", "alice"] }),
    }),
  ),
});

test("whatever is denied: the patches allow it when they are applied, and none of them can be left out", () => {
  const seen = { denied: 0, mended: 0, several: 0 };
  fc.assert(
    fc.property(mesh, requestOf, ({ policies, mode }, request) => {
      const documents = [
        ...policies.map(([given, namespace], index) => policy(`p${index}`, given, namespace)),
        ...(mode === null ? [] : [peerAuthentication({ mtls: { mode } })]),
      ];
      const answer = decide(documents, request);
      const changes = answer.changes ?? [];
      if (answer.decision === "allow") {
        return;
      }
      seen.denied++;
      if (changes.length === 0) {
        return;
      }
      seen.mended++;
      seen.several += changes.length > 1 ? 1 : 0;
      assert.equal(decide(patchAll(documents, changes), request).decision, "allow", JSON.stringify(changes));
      for (const fewer of withoutOne(changes)) {
        assert.equal(decide(patchAll(documents, fewer), request).decision, "deny", JSON.stringify({ changes, fewer }));
      }
    }),
    { numRuns: 150 },
  );
  assert.ok(seen.denied > 50 && seen.mended > seen.denied * 0.8 && seen.several > 4, JSON.stringify(seen));
});

type Patch = Pick<Change, "kind" | "policy" | "patch">;

/** Every way to leave out one operation. */
function* withoutOne(changes: readonly Change[]): Generator<readonly Patch[]> {
  for (const [index, { kind, policy: name, patch }] of changes.entries()) {
    for (const left of patch.keys()) {
      const fewer: readonly PatchOperation[] = patch.filter((_, at) => at !== left);
      yield changes.map((change, at) => (at === index ? { kind, policy: name, patch: fewer } : change));
    }
  }
}
