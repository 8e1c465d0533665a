/** Each MUST of SPIFFE_Federation for who consumes an endpoint. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { emptyBundle, formatBundle } from "../../../core/spiffe/bundle.ts";
import type { EndpointProfile, Relationship } from "../../../core/spiffe/federation.ts";
import type { TestCa } from "../../../core/x509/fixture.ts";
import { pem } from "../../../io/tls.ts";
import { fetchBundle } from "./fetch-bundle.ts";
import { currentCa, type EndpointOptions, endpoint, endpointId, json, other, redirect } from "./fixture.ts";

const root = currentCa("their root");
const webRoot = currentCa("a web root");
const bundle = { ...emptyBundle(other), x509Authorities: [root.der], sequence: 2n ** 63n };
const document = formatBundle(bundle);
const SPIFFE: EndpointProfile = { kind: "https_spiffe", endpointSpiffeId: endpointId };
const WEB: EndpointProfile = { kind: "https_web" };

const relationship = (port: number, profile: EndpointProfile, host = "localhost"): Relationship => ({
  trustDomain: other,
  url: `https://${host}:${port}/`,
  profile,
});

interface Known {
  /** Authorities of the web. */
  readonly web?: readonly TestCa[];
  /** What is stored of `other.org`. */
  readonly stored?: readonly TestCa[];
}

const fetchFrom = (one: Relationship, { web = [webRoot], stored = [root] }: Known = {}) =>
  fetchBundle(one, {
    bundleOf: (domain) => (domain === other ? { ...bundle, x509Authorities: stored.map(({ der }) => der) } : undefined),
    webAuthorities: () => web.map(({ der }) => pem("CERTIFICATE", der)),
    now: () => Date.now(),
  });

/** An endpoint that serves the bundle, unless `options` say else. */
const serving = (t: TestContext, ca: TestCa, options: Partial<EndpointOptions> = {}) =>
  endpoint(t, { ca, answer: json(document), ...options });

test("§5: clients support both profiles", async (t) => {
  const spiffe = await serving(t, root);
  const web = await serving(t, webRoot);
  for (const one of [relationship(spiffe.port, SPIFFE), relationship(web.port, WEB)]) {
    const fetched = await fetchFrom(one);
    assert.equal(fetched.trustDomain, other);
    assert.deepEqual([...fetched.x509Authorities].map(Buffer.from), [Buffer.from(root.der)]);
    assert.equal(fetched.sequence, 2n ** 63n);
  }
  assert.deepEqual([...spiffe.asked, ...web.asked], ["GET /", "GET /"]);
});

test("§5.2.1.4: https_web: the certificate is of a trusted authority and of the URL's host, or nothing is asked", async (t) => {
  const untrusted = await serving(t, currentCa("nobody's root"));
  await assert.rejects(fetchFrom(relationship(untrusted.port, WEB)), /certificate/);
  const misnamed = await serving(t, webRoot, { dnsNames: ["elsewhere.example"] });
  await assert.rejects(fetchFrom(relationship(misnamed.port, WEB)), /altnames/);
  assert.deepEqual([...untrusted.asked, ...misnamed.asked], []);
});

test("§5.2.2.4: https_spiffe: a valid X.509-SVID of exactly the endpoint's ID, or nothing is asked", async (t) => {
  const cases: readonly (readonly [string, TestCa, string, RegExp])[] = [
    ["another ID", root, "spiffe://other.org/spire/server2", /proved to be/],
    ["another trust domain", root, "spiffe://third.org/spire/server", /SPIFFE Authentication: no bundle/],
    ["an unknown authority", currentCa("forged"), endpointId, /proves nothing/],
    ["no SPIFFE ID", root, "https://other.org", /proves nothing/],
    ["a web certificate alone", webRoot, endpointId, /proves nothing/],
  ];
  for (const [what, ca, id, message] of cases) {
    const { port, asked } = await serving(t, ca, { id });
    await assert.rejects(fetchFrom(relationship(port, SPIFFE)), message, what);
    assert.deepEqual(asked, [], what);
  }
});

test("§5.2.2.4: the newest stored bundle is what an endpoint is known by; https_spiffe needs no name in the certificate", async (t) => {
  const next = currentCa("their next root");
  const { port } = await serving(t, next, { dnsNames: [] });
  await assert.rejects(fetchFrom(relationship(port, SPIFFE)), /proves nothing/);
  assert.equal((await fetchFrom(relationship(port, SPIFFE, "127.0.0.1"), { stored: [root, next] })).trustDomain, other);
});

test("§5.2.2.2: without a bundle to begin with, https_spiffe cannot begin", async (t) => {
  const { port } = await serving(t, root);
  await assert.rejects(fetchFrom(relationship(port, SPIFFE), { stored: [] }), /proves nothing/);
});

test("§5.2.1.4, §5.2.2.4: redirects lead to valid URLs of the profile alone, and are not remembered", async (t) => {
  const target = await serving(t, root);
  const first = await endpoint(t, { ca: root, answer: redirect(`https://localhost:${target.port}/moved`) });
  for (const _again of [1, 2]) {
    await fetchFrom(relationship(first.port, SPIFFE));
  }
  assert.deepEqual([first.asked.length, target.asked], [2, ["GET /moved", "GET /moved"]]);
  const refused: readonly (readonly [string, RegExp])[] = [
    [`http://localhost:${target.port}/`, /must use the https scheme/],
    [`https://user@localhost:${target.port}/`, /user info/],
    ["https://", /parse/],
  ];
  for (const [location, message] of refused) {
    const { port } = await endpoint(t, { ca: root, answer: redirect(location) });
    await assert.rejects(fetchFrom(relationship(port, SPIFFE)), message, location);
  }
  assert.equal(target.asked.length, 2);
});

test("§5.2.2.4: what is redirected to presents the same SPIFFE ID", async (t) => {
  const target = await serving(t, root, { id: "spiffe://other.org/cdn" });
  const { port } = await endpoint(t, { ca: root, answer: redirect(`https://localhost:${target.port}/`) });
  await assert.rejects(fetchFrom(relationship(port, SPIFFE)), /proved to be `spiffe:\/\/other.org\/cdn`/);
  assert.deepEqual(target.asked, []);
});

test("a redirect that does not end, and one without a place, are failures", async (t) => {
  const loop = await endpoint(t, {
    ca: root,
    answer: (request, response) => redirect(`https://localhost:${loop.port}${request.url}x`)(request, response),
  });
  await assert.rejects(fetchFrom(relationship(loop.port, SPIFFE)), /redirects/);
  assert.equal(loop.asked.length, 4);
  const nowhere = await endpoint(t, { ca: root, answer: json("", 302) });
  await assert.rejects(fetchFrom(relationship(nowhere.port, SPIFFE)), /unexpected status 302/);
});

test("what is no bundle is refused: other statuses, other bytes, too many bytes, none at all", async (t) => {
  const cases: readonly (readonly [string, EndpointOptions["answer"], RegExp])[] = [
    ["404", json(document, 404), /unexpected status 404/],
    ["500", json(document, 500), /unexpected status 500/],
    ["no JSON", json("<html>"), /malformed JSON/],
    ["a key twice", json('{"keys":[],"keys":[]}'), /comes twice/],
    ["not UTF-8 (§5.2.1.3)", json(Buffer.from([0x7b, 0xff, 0x7d])), /not UTF-8/],
    ["endless", (_request, response) => response.writeHead(200).end(Buffer.alloc(5 * 1024 * 1024)), /longer than/],
    ["cut off", (_request, response) => response.destroy(), /hang up|aborted|ECONNRESET/],
  ];
  for (const [what, answer, message] of cases) {
    const { port } = await endpoint(t, { ca: root, answer });
    await assert.rejects(fetchFrom(relationship(port, SPIFFE)), message, what);
  }
});

test("SPIFFE_Trust_Domain_and_Bundle §4.1.3: an empty set is a bundle: nothing of that trust domain is believed", async (t) => {
  const { port } = await endpoint(t, { ca: root, answer: json('{"keys":[]}') });
  const fetched = await fetchFrom(relationship(port, SPIFFE));
  assert.deepEqual([fetched.x509Authorities.length, fetched.jwtAuthorities.length], [0, 0]);
});
