/**
 * Every published way around Istio's and Envoy's policies that we know of, as an input to the surface it reaches here, with what
 * we answer. A row without a surface says why, and asserts what takes its place.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AVAILABILITY } from "./cves/availability.ts";
import { HEADERS } from "./cves/headers.ts";
import { IDENTITIES } from "./cves/identities.ts";
import { PATHS_AND_HOSTS } from "./cves/paths-and-hosts.ts";
import { TENANTS } from "./cves/tenants.ts";
import { TOKENS } from "./cves/tokens.ts";

const ROWS = [...PATHS_AND_HOSTS, ...HEADERS, ...IDENTITIES, ...TOKENS, ...TENANTS, ...AVAILABILITY];

for (const { id, attack, answer, check } of ROWS) {
  test(`${id}: ${attack} → ${answer}`, check);
}

test("every row has a name of its own", () => {
  assert.equal(new Set(ROWS.map(({ id }) => id)).size, ROWS.length);
  assert.ok(ROWS.length >= 65, `${ROWS.length} rows`);
});
