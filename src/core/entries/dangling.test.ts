import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSpiffeId, parseTrustDomain, type SpiffeId } from "../spiffe/id.ts";
import { danglingMessage, danglingParents, missingAlias } from "./dangling.ts";

const domain = parseTrustDomain("example.com");
const id = (path: string): SpiffeId => parseSpiffeId(`spiffe://example.com${path}`);
const entry = (spiffeId: string, parentId: string) => ({ spiffeId: id(spiffeId), parentId: id(parentId) });
const found = (...entries: readonly ReturnType<typeof entry>[]): string[] =>
  [...danglingParents(entries, domain)].map(
    ([parent, under]) => `${parent.slice(20)} <- ${under.map(({ spiffeId }) => spiffeId.slice(20)).join(" ")}`,
  );

test("parents that lead to an agent are none of these", () => {
  assert.deepEqual(found(entry("/web", "/spire/agent/join_token/x")), []);
  assert.deepEqual(found(entry("/node", "/spire/server"), entry("/web", "/node"), entry("/child", "/web")), []);
  assert.deepEqual(found(), []);
});

test("a parent that is nobody's, what hangs below it, and circles", () => {
  assert.deepEqual(found(entry("/web", "/agent"), entry("/db", "/agent"), entry("/child", "/web")), [
    "/agent <- /web /db",
    "/web <- /child",
  ]);
  assert.deepEqual(found(entry("/a", "/b"), entry("/b", "/a")), ["/a <- /b", "/b <- /a"]);
  assert.deepEqual(found(entry("/web", "/agent"), entry("/agent", "/spire/server")), [], "the alias repairs it");
});

test("what is missing is said so that it can be typed", () => {
  assert.match(danglingMessage(id("/agent")), /`spiffe:\/\/example\.com\/agent` is no agent's ID/);
  assert.match(
    missingAlias(id("/agent"), ["k8s_psat:cluster:production"]),
    /entry create -node -spiffeID spiffe:\/\/example\.com\/agent -selector k8s_psat:cluster:production`/,
  );
});
