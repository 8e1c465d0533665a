import assert from "node:assert/strict";
import { test } from "node:test";
import { type Bundle, emptyBundle } from "../../core/spiffe/bundle.ts";
import { parseTrustDomain } from "../../core/spiffe/id.ts";
import { testCa } from "../../core/x509/fixture.ts";
import { bundleToDocument } from "./bundle-wire.ts";
import {
  joined,
  publishedBy,
  readOwnBundle,
  sameAuthorities,
  unionOf,
  withoutExpired,
  writeOwnBundle,
} from "./own-bundle.ts";

const trustDomain = parseTrustDomain("example.com");
const NOW = 1_900_000_000_000;
const key = (keyId: string, expiresAtMs: number | null = null, tainted = false) => {
  return { keyId, publicKey: Uint8Array.of(1), expiresAtMs, tainted };
};
const ca = (name: string, notAfterMs = NOW + 1_000) => testCa(name, { notBeforeMs: NOW - 1_000, notAfterMs }).der;
const bundle = (change: Partial<Bundle>): Bundle => ({ ...emptyBundle(trustDomain), ...change });
const dersOf = ({ x509Authorities }: Pick<Bundle, "x509Authorities">) =>
  x509Authorities.map((der) => Buffer.from(der).toString("hex"));

test("what an earlier version kept is what was appended; what this one keeps comes back as it went in", () => {
  const appended = bundle({ jwtAuthorities: [key("a")], sequence: 7n });
  const old = readOwnBundle(trustDomain, { trustDomain, sequence: 3, document: bundleToDocument(appended) });
  assert.deepEqual([old.sequence, old.appended.jwtAuthorities[0]?.keyId, old.servers.size], [3, "a", 0]);
  const servers = new Map([["one", bundle({ x509Authorities: [ca("one")], jwtAuthorities: [key("j", NOW, true)] })]]);
  const record = writeOwnBundle(trustDomain, { ...old, sequence: 4, servers });
  const again = readOwnBundle(trustDomain, record);
  assert.equal(again.sequence, 4);
  assert.equal(sameAuthorities(again.servers.get("one"), servers.get("one") as Bundle), true);
  assert.deepEqual(readOwnBundle(trustDomain, null).servers.size, 0);
});

test("the bundle is everybody's authorities, each once, under the store's number; ours come first", () => {
  const [mine, theirs, more] = [ca("mine"), ca("theirs"), ca("more")];
  const own = {
    sequence: 9,
    appended: bundle({ x509Authorities: [more, theirs] }),
    servers: new Map([
      ["two", bundle({ x509Authorities: [theirs], jwtAuthorities: [key("k", null, true)], taintedX509KeyIds: ["aa"] })],
      ["one", bundle({ x509Authorities: [mine] })],
    ]),
  };
  const union = unionOf(own, bundle({ x509Authorities: [mine], jwtAuthorities: [key("k")], refreshHintMs: 5 }));
  assert.deepEqual(dersOf(union), dersOf({ x509Authorities: [mine, theirs, more] }));
  assert.deepEqual([union.sequence, union.refreshHintMs, union.taintedX509KeyIds], [9n, 5, ["aa"]]);
  assert.deepEqual(union.jwtAuthorities, [key("k", null, true)], "what one says is tainted is tainted");
});

test("a server takes back what it published itself, and leaves what an earlier run of it signed with", () => {
  const [lost, first, second] = [ca("lost"), ca("first"), ca("second")];
  const stored = bundle({ x509Authorities: [lost, first], taintedX509KeyIds: ["aa"] });
  const published = bundle({ x509Authorities: [first], taintedX509KeyIds: ["aa"] });
  const next = publishedBy(stored, published, bundle({ x509Authorities: [second] }));
  assert.deepEqual(dersOf(next), dersOf({ x509Authorities: [second, lost] }));
  assert.deepEqual(next.taintedX509KeyIds, []);
  assert.deepEqual(dersOf(publishedBy(stored, undefined, published)), dersOf({ x509Authorities: [first, lost] }));
  assert.deepEqual(dersOf(publishedBy(undefined, undefined, published)), dersOf(published));
});

test("what expired goes, and with it servers that have nothing left; nothing to do is the same object", () => {
  const live = bundle({ x509Authorities: [ca("live")], jwtAuthorities: [key("gone", NOW - 1), key("kept", NOW + 1)] });
  const over = bundle({ x509Authorities: [ca("over", NOW - 10)] });
  const appended = bundle({ jwtAuthorities: [key("appended", NOW - 5)] });
  const own = {
    sequence: 1,
    appended,
    servers: new Map([
      ["live", live],
      ["over", over],
    ]),
  };
  const kept = withoutExpired(own, NOW, NOW - 100);
  assert.deepEqual([...kept.servers.keys()], ["live"]);
  assert.deepEqual(
    kept.servers.get("live")?.jwtAuthorities.map(({ keyId }) => keyId),
    ["kept"],
  );
  assert.equal(kept.appended, appended, "what was appended has a time of its own");
  assert.equal(withoutExpired(kept, NOW, NOW - 100), kept);
  assert.deepEqual(withoutExpired(kept, NOW, NOW).appended.jwtAuthorities, []);
  assert.deepEqual(joined([]), { x509Authorities: [], taintedX509KeyIds: [], jwtAuthorities: [] });
});
