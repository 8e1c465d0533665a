import assert from "node:assert/strict";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { parseCidr } from "../core/base/cidr.ts";
import { FakeClock } from "../core/base/clock.ts";
import { parseResources } from "../core/policy/parse.ts";
import { guardedGet } from "../io/guarded-get.ts";
import { silentLog } from "../io/log.ts";
import { mayReach } from "../io/public-address.ts";
import { eventually, testControl, testService } from "./fixture.ts";
import { Jwks, type JwksOptions } from "./jwks.ts";

const EMPTY = '{"keys":[]}';
const URL = "https://keys.example/jwks";

const documentNaming = (uri: string): string =>
  `apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: j, namespace: n}\nspec: {jwtRules: [{issuer: i, jwksUri: "${uri}", timeout: 3s}]}\n`;

const naming = (uri: string) => parseResources([{ file: "p.yaml", text: documentNaming(uri) }]).resources;

type Get = NonNullable<JwksOptions["get"]>;

function follow(get: Get) {
  const clock = new FakeClock(0);
  const jwks = new Jwks({ allowed: [], clock, log: silentLog, get });
  jwks.follow(naming(URL));
  return { clock, jwks };
}

const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

test("a key set is read again when its Cache-Control says, within bounds; a failure keeps the last one", async () => {
  const answers: (string | Error)[] = [EMPTY, new Error("down"), "no JSON", '{"keys": []}'];
  let asked = 0;
  const timeouts: number[] = [];
  const { clock, jwks } = follow(async (_url, { timeoutMs }) => {
    timeouts.push(timeoutMs);
    const answer = answers[asked++] ?? EMPTY;
    if (answer instanceof Error) {
      throw answer;
    }
    return { body: answer, headers: { "cache-control": "public, max-age=120" } };
  });
  await settle();
  assert.deepEqual([asked, jwks.keySets.value.get(URL), timeouts[0]], [1, EMPTY, 3_000]);
  assert.equal(jwks.faults.size, 0);
  clock.advance(119_999);
  await settle();
  assert.equal(asked, 1);
  for (const [ms, want] of [
    [1, 2],
    [1_000, 3],
    [2_000, 4],
  ] as const) {
    clock.advance(ms);
    await settle();
    assert.equal(asked, want);
    assert.equal(jwks.keySets.value.get(URL), want < 4 ? EMPTY : '{"keys": []}');
    assert.equal(jwks.faults.has(URL), want < 4);
  }
  jwks.follow([]);
  assert.equal(jwks.keySets.value.size, 0);
  clock.advance(3_600_000);
  await settle();
  assert.equal(asked, 4);
});

test("a set that is wanted is read at once, but not more often than every five seconds", async () => {
  let asked = 0;
  const { clock, jwks } = follow(async () => ({ body: `{"keys":[],"n":${asked++}}`, headers: {} }));
  await settle();
  jwks.want(URL);
  jwks.want("https://another.example");
  assert.equal(asked, 1);
  clock.advance(5_000);
  jwks.want(URL);
  jwks.want(URL);
  await settle();
  assert.equal(asked, 2);
  jwks.close();
});

const addresses: readonly (readonly [string, boolean])[] = [
  ["8.8.8.8", true],
  ["2606:4700::1111", true],
  ...[
    ...["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"],
    ...["255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:10.0.0.1"],
    ...["64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "not an address"],
  ].map((address): [string, boolean] => [address, false]),
];
test("what is not public is not reached, unless it is named", () => {
  for (const [address, reachable] of addresses) {
    assert.equal(mayReach(address, []), reachable, address);
  }
  const allowed = [parseCidr("127.0.0.1/32")!];
  assert.deepEqual([mayReach("127.0.0.1", allowed), mayReach("::ffff:127.0.0.1", allowed)], [true, true]);
  assert.equal(mayReach("127.0.0.2", allowed), false);
});

async function serve(t: { after(fn: () => void): void }, listener: RequestListener): Promise<string> {
  const server: Server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("a URL is fetched within its bounds, and no redirect or name leads past them", async (t) => {
  const origin = await serve(t, (request, response) => {
    switch (request.url) {
      case "/keys":
        return void response.end(EMPTY);
      case "/to-keys":
        return void response.writeHead(302, { location: "/keys" }).end();
      case "/loop":
        return void response.writeHead(302, { location: "/loop" }).end();
      case "/metadata":
        return void response.writeHead(302, { location: "http://169.254.169.254/latest" }).end();
      case "/file":
        return void response.writeHead(302, { location: "file:///etc/passwd" }).end();
      case "/long":
        return void response.end("x".repeat(2_000));
      case "/slow":
        return;
      default:
        return void response.writeHead(404).end();
    }
  });
  const get = (path: string, timeoutMs = 5_000) =>
    guardedGet(origin + path, { allowed: [parseCidr("127.0.0.1")!], timeoutMs, maxBytes: 1_000 });
  assert.equal((await get("/keys")).body, EMPTY);
  assert.equal((await get("/to-keys")).body, EMPTY);
  await assert.rejects(get("/loop"), /more than 3 redirects/);
  await assert.rejects(get("/metadata"), /`169\.254\.169\.254` is not a public address/);
  await assert.rejects(get("/file"), /neither http nor https/);
  await assert.rejects(get("/long"), /longer than 1000 bytes/);
  await assert.rejects(get("/slow", 50), /no answer within 50 ms/);
  await assert.rejects(get("/none"), /status 404/);
  const guarded = { allowed: [], timeoutMs: 5_000, maxBytes: 1_000 };
  await assert.rejects(guardedGet(`${origin}/keys`, guarded), { code: "permission-denied" });
  const named = origin.replace("127.0.0.1", "localhost");
  await assert.rejects(guardedGet(`${named}/keys`, guarded), /`localhost` is not a public address/);
  assert.equal((await guardedGet(`${named}/keys`, { ...guarded, allowed: [parseCidr("127.0.0.1")!] })).body, EMPTY);
});

test("a sidecar gets the key sets and bundles of its own policies, and no others", async (t) => {
  let version = 0;
  const origin = await serve(t, (_, response) => response.end(`{"keys":[],"version":${++version}}`));
  const uri = `${origin}/keys`;
  const rego = { name: "rego", everyhopOpaWasm: { bundle: "policies/b.tar.gz", entrypoint: "x" } };
  const mesh = await testControl(t, {
    services: [testService("shop", { namespace: "n" }), testService("other", { namespace: "m" })],
    meshConfig: { everyhopJwks: { allow: ["127.0.0.1"] }, extensionProviders: [rego] },
    files: {
      "a.yaml": `${documentNaming(uri)}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: n}
spec: {action: CUSTOM, provider: {name: rego}, rules: [{}]}
`,
      "b.tar.gz": "a bundle",
    },
  });
  const shop = mesh.sidecar("n/shop");
  const other = mesh.sidecar("m/other");
  await shop.until((s) => s.snapshot?.keySets.length === 1);
  assert.deepEqual([shop.snapshot?.keySets[0]?.uri, shop.snapshot?.keySets[0]?.keys], [uri, '{"keys":[],"version":1}']);
  assert.equal(Buffer.from(shop.snapshot?.bundles[0]?.content ?? []).toString(), "a bundle");
  await other.until((s) => s.pushes > 0);
  assert.deepEqual([other.snapshot?.keySets.length, other.snapshot?.bundles.length], [0, 0]);
  // Not more often than every five seconds, which are not waited for here.
  shop.report({ wantedKeySets: [uri, "https://elsewhere.example"] });
  await eventually(async () => (await mesh.control.status()).proxies.every(({ state }) => state === "synced"));
  assert.equal(version, 1);
});
