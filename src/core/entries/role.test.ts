import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSpiffeId, type SpiffeId } from "../spiffe/id.ts";
import { certificateOutOfScope, covers, entryOutOfScope, type Role, scopeOf } from "./role.ts";

const id = (path: string): SpiffeId => parseSpiffeId(`spiffe://example.com${path}`);
const role = (changes: Partial<Role> = {}): Role => ({
  name: "payments",
  members: ["spiffe://example.com/ci/payments", "spiffe://example.com/ops/*"],
  may: ["entries:write"],
  under: [id("/ns/payments")],
  parents: null,
  dnsNames: ["*.payments.example", "pay.example"],
  ...changes,
});

test("a role is had by those it names, for the rights it names", () => {
  const has = (path: string, right: "entries:write" | "entries:read") => scopeOf([role()], id(path), right).length > 0;
  const rows: [string, boolean][] = [
    ["/ci/payments", true],
    ["/ci/payments2", false],
    ["/ci/payments/x", false],
    ["/ops/a", true],
    ["/ops/a/b", true],
    ["/ops", false],
    ["/opsx/a", false],
    ["/ns/payments/a", false],
  ];
  for (const [path, expected] of rows) {
    assert.equal(has(path, "entries:write"), expected, path);
    assert.equal(has(path, "entries:read"), false, path);
  }
});

test("a scope covers what is below it by whole segments", () => {
  const rows: [string, boolean][] = [
    ["/ns/payments", true],
    ["/ns/payments/sa/web", true],
    ["/ns/payments2/sa/web", false],
    ["/ns/payment", false],
    ["/ns", false],
  ];
  for (const [path, expected] of rows) {
    assert.equal(covers([role()], id(path)), expected, path);
  }
  assert.equal(covers(null, id("/anything")), true, "no limit");
  assert.equal(covers([], id("/ns/payments")), false, "no role, no right");
  assert.equal(covers([role({ under: null })], id("/anything")), true);
});

test("an entry within the scope, and each way of reaching beyond it", () => {
  const draft = { spiffeId: id("/ns/payments/sa/web"), parentId: id("/node/a"), selectors: ["unix:uid:1"] };
  const rows: [object, RegExp | null][] = [
    [{}, null],
    [{ dnsNames: ["web.payments.example", "pay.example"] }, null],
    [{ spiffeId: id("/ns/orders/sa/web") }, /not under what the role `payments` covers/],
    [{ admin: true }, /may not make administrators/],
    [{ downstream: true }, /may not make administrators/],
    [{ dnsNames: ["payments.example"] }, /DNS name/],
    [{ dnsNames: [".payments.example"] }, /DNS name/],
    [{ dnsNames: ["pay.example", "bank.example"] }, /`bank.example`/],
  ];
  for (const [change, expected] of rows) {
    const fault = entryOutOfScope([role()], { ...draft, ...change });
    assert.ok(expected === null ? fault === null : expected.test(fault ?? ""), `${JSON.stringify(change)}: ${fault}`);
  }
  const parents = [id("/node/b")];
  assert.match(entryOutOfScope([role({ parents })], draft) ?? "", /parent/);
  assert.equal(entryOutOfScope([role({ parents })], { ...draft, parentId: id("/node/b/c") }), null);
  assert.equal(entryOutOfScope(null, { ...draft, admin: true }), null, "no limit");
  assert.equal(entryOutOfScope([role({ under: null })], { ...draft, admin: true }), null, "over everything");
  assert.notEqual(entryOutOfScope([], draft), null);
});

test("two roles are not added up into one that nobody gave", () => {
  const roles = [role({ parents: [id("/node/a")] }), role({ under: [id("/ns/orders")], parents: [id("/node/b")] })];
  const mixed = { spiffeId: id("/ns/payments/sa/web"), parentId: id("/node/b"), selectors: ["unix:uid:1"] };
  assert.notEqual(entryOutOfScope(roles, mixed), null);
});

test("a minted certificate is limited in its names", () => {
  const web = id("/ns/payments/sa/web");
  assert.equal(certificateOutOfScope([role({ parents: [id("/node/b")] })], web, ["pay.example"]), null);
  assert.match(certificateOutOfScope([role()], web, ["bank.example"]) ?? "", /DNS name/);
  assert.match(certificateOutOfScope([role()], id("/ns/orders/x"), []) ?? "", /not under/);
});
