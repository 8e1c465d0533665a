import assert from "node:assert/strict";
import { test } from "node:test";
import { endpointUrlFault, isInside, refreshDelayMs } from "./federation.ts";

test("Federation §5.2.1.1, §5.2.2.1: the scheme is https, and there is no userinfo", () => {
  const cases: readonly (readonly [string, string | null])[] = [
    ["https://example.com/", null],
    ["https://example.com:8443/bundle.json?x=1", null],
    ["https://[2001:db8::1]:8443", null],
    ["HTTPS://example.com/a@b", null],
    ["http://example.com/", "bundle endpoint URL must use the https scheme"],
    ["spiffe://example.com/", "bundle endpoint URL must use the https scheme"],
    ["https://user@example.com/", "bundle endpoint URL must not contain user info"],
    ["https://user:secret@example.com/", "bundle endpoint URL must not contain user info"],
    ["https://@example.com/", "bundle endpoint URL must not contain user info"],
    ["https://", "failed to parse bundle endpoint URL"],
    ["example.com", "failed to parse bundle endpoint URL"],
    ["", "failed to parse bundle endpoint URL"],
  ];
  for (const [url, fault] of cases) {
    assert.equal(endpointUrlFault(url), fault, url);
  }
});

test("Federation §4.1: polled at the refresh hint, five minutes without one, within reason", () => {
  assert.equal(refreshDelayMs(null), 300_000);
  assert.equal(refreshDelayMs(120_000), 120_000);
  assert.equal(refreshDelayMs(1_000), 60_000);
  assert.equal(refreshDelayMs(1_000, 500), 1_000);
  assert.equal(refreshDelayMs(2 ** 31 * 1_000), 86_400_000);
});

test("addresses that only we can reach", () => {
  for (const inside of [
    ...["127.0.0.1", "10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"],
    ...["::1", "::", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "", "localhost"],
  ]) {
    assert.equal(isInside(inside), true, inside);
  }
  for (const outside of ["203.0.113.9", "8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"]) {
    assert.equal(isInside(outside), false, outside);
  }
});
