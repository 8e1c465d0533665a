import assert from "node:assert/strict";
import { test } from "node:test";
import type { DenialDocument, NearestMiss, StatusDocument } from "../core/api/admin.ts";
import { printable } from "./printable.ts";
import { killText, statusText, whyText } from "./status-text.ts";

const NOW = Date.parse("2030-01-01T12:00:00.000Z");

const miss: NearestMiss = {
  kind: "AuthorizationPolicy",
  policy: "production/payment-service-access",
  rule: 0,
  would: "be allowed if `methods` included `PUT`",
  patch: [{ op: "add", path: "/spec/rules/0/to/0/operation/methods/-", value: "PUT" }],
};

const denial: DenialDocument = {
  id: "d-7f3a",
  time: "2030-01-01T11:59:57.500Z",
  source: "spiffe://example.com/ns/back/sa/printer",
  sourceIp: "127.0.0.1",
  destination: "payment-service",
  port: 8080,
  method: "PUT",
  path: "/api/v1/payments\u001b[2J\u202e",
  host: "payment-service",
  reason: "no-allow-matched",
  policy: "production/payment-service-access",
  rule: 0,
  snapshotVersion: 17,
  nearestMiss: miss,
  changes: [miss],
};

const tcp: DenialDocument = {
  ...denial,
  id: "d-8",
  time: "2030-01-01T10:30:00.000Z",
  source: null,
  destination: "postgres-proxy",
  port: 5432,
  method: null,
  path: null,
  host: null,
  reason: "plaintext-refused",
  policy: null,
  rule: null,
  nearestMiss: null,
  changes: [],
};

const status: StatusDocument = {
  version: 17,
  trustDomain: "example.com",
  identities: [
    {
      spiffeId: "spiffe://example.com/ns/production/sa/payment-service",
      serial: "7f3a11d04c99aa0142",
      notBefore: "2030-01-01T11:30:00.000Z",
      notAfter: "2030-01-01T12:42:07.000Z",
      overdue: false,
      service: "payment-service",
    },
    {
      spiffeId: "spiffe://example.com/spire/server",
      serial: "01",
      notBefore: "2030-01-01T11:00:00.000Z",
      notAfter: "2030-01-02T09:30:30.000Z",
      overdue: false,
      service: null,
    },
  ],
  proxies: [
    {
      service: "payment-service",
      spiffeId: "spiffe://example.com/ns/production/sa/payment-service",
      version: 17,
      state: "synced",
      error: null,
    },
    {
      service: "printer",
      spiffeId: "spiffe://example.com/ns/back/sa/printer",
      version: 16,
      state: "rejected",
      error: "no such key",
    },
    {
      service: "postgres-proxy",
      spiffeId: "spiffe://example.com/ns/data/sa/postgres-proxy",
      version: 0,
      state: "stale",
      error: null,
    },
  ],
  policies: [
    {
      name: "production/payment-service-access",
      kind: "AuthorizationPolicy",
      source: "policies/a.yaml:3",
      findings: [],
    },
    {
      name: "data/database-access",
      kind: "AuthorizationPolicy",
      source: "policies/b.yaml:1",
      findings: [
        {
          code: "selects-nothing",
          severity: "warning",
          message: "selects no workload",
          file: "policies/b.yaml",
          line: 6,
          column: 5,
          hint: "check the labels",
        },
      ],
    },
  ],
  problems: [
    {
      code: "unknown-field",
      severity: "error",
      message: "unknown field `acton`",
      file: "policies/c.yaml",
      line: 7,
      column: 3,
      path: "spec.acton",
      hint: "did you mean `action`?",
    },
  ],
  dryRuns: [
    { service: "payment-service", enforced: "allow", would: "allow", policy: null, count: 90 },
    { service: "payment-service", enforced: "allow", would: "deny", policy: "production/next", count: 7 },
  ],
  denials: [denial, tcp],
  kills: [{ spiffeId: "spiffe://example.com/ns/back/sa/printer", since: "2030-01-01T11:58:00.000Z" }],
};

test("status for people", () => {
  assert.equal(
    statusText(status, NOW),
    `mesh example.com, version 17: 1 of 3 sidecars in sync

Refused (the last good state stays in force)
error: policies/c.yaml:7:3: spec.acton: unknown field \`acton\`
  hint: did you mean \`action\`?

Identities
  SERVICE          SPIFFE ID                                              SERIAL        EXPIRES
  payment-service  spiffe://example.com/ns/production/sa/payment-service  7f3a11d04c99  in 42m7s
  -                spiffe://example.com/spire/server                      01            in 21h30m

Sidecars
  SERVICE          STATE     VERSION  ERROR
  payment-service  synced    17
  printer          rejected  16       no such key
  postgres-proxy   stale     -

Policies
  NAME                               KIND                 SOURCE             FINDINGS
  production/payment-service-access  AuthorizationPolicy  policies/a.yaml:3  none
  data/database-access               AuthorizationPolicy  policies/b.yaml:1  1

warning: policies/b.yaml:6:5: selects no workload
  hint: check the labels

Cut off
  SPIFFE ID                                SINCE
  spiffe://example.com/ns/back/sa/printer  2m ago

Last denials
  ID      AGO    SOURCE                                   DESTINATION           REQUEST                              REASON
  d-7f3a  2s     spiffe://example.com/ns/back/sa/printer  payment-service:8080  PUT /api/v1/payments\\x1b[2J\\u{202e}  no-allow-matched
  d-8     1h30m  nobody proven, from 127.0.0.1            postgres-proxy:5432   TCP connection                       plaintext-refused

Dry runs: what would be decided otherwise
  SERVICE          NOW    WOULD BE  BY               TIMES
  payment-service  allow  deny      production/next  7

\`everyhop why ID\` explains a denial`,
  );
});

test("why for people", () => {
  const why = { ...denial, ruleText: "from principals cluster.local/ns/production/sa/api-gateway", version: 18 };
  assert.equal(
    whyText({ ...why, allowed: ["from principals a; to methods POST (production/payment-service-access, rule 0)"] }),
    `denial    d-7f3a
time      2030-01-01T11:59:57.500Z
who       spiffe://example.com/ns/back/sa/printer
from      127.0.0.1
what      PUT /api/v1/payments\\x1b[2J\\u{202e}
to        payment-service, port 8080, host payment-service
reason    policies allow some requests to this service, and none of their rules allows this one (no-allow-matched)
rule      production/payment-service-access, rule 0
says      from principals cluster.local/ns/production/sa/api-gateway
snapshot  version 17

Nearest: production/payment-service-access, rule 0 would be allowed if \`methods\` included \`PUT\`
  {"op":"add","path":"/spec/rules/0/to/0/operation/methods/-","value":"PUT"}

Allowed at payment-service (version 18):
  from principals a; to methods POST (production/payment-service-access, rule 0)`,
  );
  const text = whyText({ ...tcp, ruleText: null, allowed: [], version: 18 });
  assert.match(text, /^who {7}nobody: no identity was proven$/m);
  assert.match(text, /^what {6}TCP connection$/m);
  assert.match(text, /^At postgres-proxy no policy limits what is allowed \(version 18\)\.$/m);
});

test("kill and restore for people", () => {
  const document = {
    order: "o",
    spiffeId: "spiffe://example.com/ns/back/sa/printer",
    confirmed: 6,
    total: 6,
    unconfirmed: [],
    connectionsClosed: 1,
    ms: 41,
  };
  assert.equal(
    killText(document, false),
    "spiffe://example.com/ns/back/sa/printer is cut off: confirmed by 6 of 6 sidecars in 41 ms; 1 connection closed",
  );
  assert.equal(
    killText({ ...document, confirmed: 5, unconfirmed: ["user-service"], ms: 2000 }, true),
    `spiffe://example.com/ns/back/sa/printer is restored: confirmed by 5 of 6 sidecars in 2000 ms
not confirmed by user-service: not connected, or without an answer; they go on refusing it until they are`,
  );
});

test("text from outside cannot drive the terminal", () => {
  assert.equal(printable("a\u001b]0;x\u0007\r\nb\u200b\u2028é"), "a\\x1b]0;x\\x07\\x0d\\x0ab\\u{200b}\\u{2028}é");
});
