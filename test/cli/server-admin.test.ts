import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "../../src/io/log.ts";
import { startServer } from "../../src/run/server.ts";
import { readServerConfig } from "../../src/run/server-config.ts";

const MAIN = new URL("../../src/cli/main.ts", import.meta.url).pathname;
const AGENT = "spiffe://example.com/spire/agent/join_token/t";
const WEB = "spiffe://example.com/ns/shop/sa/web";

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A mesh folder with a running server, and the command line in it. */
async function meshFolder(t: TestContext, more = "", trustDomain = "example.com") {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-cli-"));
  const file = join(dir, "server.yaml");
  writeFileSync(
    file,
    `trustDomain: ${trustDomain}\ndataDir: data\nlisten: 127.0.0.1:0\nhttp: 127.0.0.1:0\nxds: 127.0.0.1:0\n${more}`,
  );
  const server = await startServer(readServerConfig(file), { log: silentLog });
  t.after(async () => {
    await server.close();
    rmSync(dir, { recursive: true });
  });
  writeFileSync(join(dir, "mesh.json"), JSON.stringify({ adminSocket: server.ready.adminSocket }));
  const run = (...args: string[]): Promise<Outcome> =>
    new Promise((resolve) => {
      execFile(process.execPath, [MAIN, ...args], { cwd: dir }, (error, out, err) => {
        resolve({ code: typeof error?.code === "number" ? error.code : 0, out, err });
      });
    });
  const json = async (...args: string[]) => {
    const { out, err, code } = await run(...args, "--json");
    assert.equal(out.trimEnd().split("\n").length, 1, `one document on standard output: ${out}${err}`);
    return { code, document: JSON.parse(out) };
  };
  return { dir, server, run, json };
}

test("entries from the command line: created, shown, changed, counted, deleted", async (t) => {
  const { run, json } = await meshFolder(t);
  const selectors = ["--selector", "unix:uid:0", "--selector", "unix:path:/bin/web"];
  const create = ["entry", "create", "--spiffe-id", WEB, "--parent-id", AGENT, ...selectors];
  const { document: made } = await json(...create, "--x509-svid-ttl", "30m", "--dns", "web.shop");
  assert.equal(made.spiffeId, WEB);
  assert.equal(made.parentId, AGENT);
  assert.deepEqual(made.selectors, ["unix:path:/bin/web", "unix:uid:0"]);
  assert.equal(made.x509SvidTtlMs, 1_800_000);
  const again = await json(...create);
  assert.deepEqual([again.code, again.document.error.code], [2, "already-exists"]);
  const { document: shown } = await json("entry", "show", "--selector", "unix:uid:0");
  assert.deepEqual(shown, { entries: [made] });
  const { document: changed } = await json("entry", "update", "--entry-id", made.id, "--hint", "main");
  assert.deepEqual(changed, { ...made, hint: "main", revision: 1 });
  assert.deepEqual((await json("entry", "count")).document, { count: 1 });
  const text = await run("entry", "show", "--entry-id", made.id);
  assert.match(text.out, /SPIFFE ID {8}: spiffe:\/\/example\.com\/ns\/shop\/sa\/web\n/);
  assert.deepEqual((await json("entry", "delete", "--entry-id", made.id)).document, { deleted: [made.id] });
  const gone = await json("entry", "delete", "--entry-id", made.id);
  assert.deepEqual([gone.code, gone.document.error.code], [2, "not-found"]);
});

test("what is wrong on the command line is said before anything is asked", async (t) => {
  const { run } = await meshFolder(t);
  const wrong: [string[], RegExp][] = [
    [["entry", "create", "--spiffe-id", "web", "--parent-id", AGENT, "--selector", "a:1"], /not a SPIFFE ID/],
    [["entry", "create", "--spiffe-id", WEB, "--parent-id", AGENT, "--selector", "uid"], /type:value/],
    [["entry", "create", "--spiffe-id", WEB], /--selector/],
    [["entry", "update", "--entry-id", "x"], /what to change/],
    [["token", "generate", "--ttl", "soon"], /not a duration/],
    [["agent", "ban"], /--spiffe-id/],
    [["bundle", "show", "--format", "der"], /one of pem, spiffe/],
  ];
  for (const [args, message] of wrong) {
    const { code, err } = await run(...args);
    assert.equal(code, 2, args.join(" "));
    assert.match(err, message);
  }
});

test("tokens, agents and the audit", async (t) => {
  const { json, run } = await meshFolder(t);
  const { document: token } = await json("token", "generate", "--ttl", "5m");
  assert.match(token.token, /^[0-9a-f-]{36}$/);
  assert.ok(Date.parse(token.expiresAt) > Date.now());
  assert.match((await run("token", "generate")).out, /^Token: /);
  assert.deepEqual((await json("agent", "list")).document, { agents: [] });
  const missing = await json("agent", "show", "--spiffe-id", AGENT);
  assert.deepEqual([missing.code, missing.document.error.code], [2, "not-found"]);
  const { document: audit, code } = await json("audit", "certificates");
  assert.deepEqual([code, audit.issued, audit.duplicates, audit.unjournaled], [0, 2, 0, 0]);
  assert.equal(audit.certificates.length, 2);
});

test("an SVID is minted to files that only their owner can read", async (t) => {
  const { dir, json } = await meshFolder(t);
  const out = join(dir, "out");
  for (const _again of [1, 2]) {
    const { document } = await json("svid", "mint", "--spiffe-id", WEB, "--out-dir", out);
    assert.equal(document.spiffeId, WEB);
  }
  assert.equal(statSync(join(out, "svid.0.key")).mode & 0o777, 0o600);
  assert.match(readFileSync(join(out, "svid.0.pem"), "utf8"), /^-----BEGIN CERTIFICATE-----/);
  const { document } = await json("svid", "mint", "--spiffe-id", WEB, "--audience", "db");
  assert.equal(document.token.split(".").length, 3);
});

test("bundles: our own in both formats, and another trust domain's there and back", async (t) => {
  const { dir, run, json } = await meshFolder(t);
  const pem = await run("bundle", "show");
  assert.match(pem.out, /^-----BEGIN CERTIFICATE-----/);
  const { document } = await json("bundle", "show");
  assert.deepEqual(
    document.keys.map(({ use }: { use: string }) => use),
    ["x509-svid", "jwt-svid"],
  );
  const file = join(dir, "other.json");
  writeFileSync(file, (await run("bundle", "show", "--format", "spiffe")).out);
  await json("bundle", "set", "--id", "spiffe://other.org", "--path", file, "--format", "spiffe");
  const { document: listed } = await json("bundle", "list");
  assert.deepEqual(listed.trust_domains["other.org"].keys, document.keys);
  assert.deepEqual((await json("bundle", "delete", "--id", "other.org")).document, { deleted: ["other.org"] });
});

test("authorities: prepared, activated, tainted and revoked by id", async (t) => {
  const { run, json } = await meshFolder(t);
  for (const type of ["x509", "jwt"]) {
    const authority = (verb: string, ...args: string[]) => json("authority", verb, "--type", type, ...args);
    const { document: first } = await authority("show");
    assert.deepEqual([first.type, first.prepared, first.old, first.active.tainted], [type, null, null, false]);
    const old = first.active.authorityId;
    const { authorityId: next } = (await authority("prepare")).document;
    const early = await authority("taint", "--authority-id", old);
    assert.deepEqual([early.code, early.document.error.code], [2, "invalid-argument"]);
    await authority("activate", "--authority-id", next);
    await authority("taint", "--authority-id", old);
    const { document: tainted } = await authority("show");
    assert.deepEqual([tainted.active.authorityId, tainted.old.authorityId, tainted.old.tainted], [next, old, true]);
    await authority("revoke", "--authority-id", old);
    assert.equal((await authority("show")).document.old, null);
  }
  const text = await run("authority", "show");
  assert.match(text.out, /^Active X\.509 authority:\n {2}Authority ID: [0-9a-f]{40}\n {2}Expires at: .*\nPrepared/);
  assert.match((await run("authority", "taint")).err, /--authority-id/);
});

test("federation: relationships by flags and by SPIRE's file, refreshed, listed, deleted", async (t) => {
  const other = await meshFolder(t, "federation: {bundleEndpoint: {listen: '127.0.0.1:0'}}\n", "other.org");
  const { dir, run, json } = await meshFolder(t);
  const first = join(dir, "other.json");
  writeFileSync(first, (await other.run("bundle", "show", "--format", "spiffe")).out);
  const url = `https://${other.server.ready.bundleEndpoint}/`;
  const endpoint = ["--bundle-endpoint-url", url, "--bundle-endpoint-profile", "https_spiffe"];
  const id = ["--endpoint-spiffe-id", "spiffe://other.org/spire/server"];
  const bundle = ["--trust-domain-bundle-path", first, "--trust-domain-bundle-format", "spiffe"];
  const create = ["federation", "create", "--trust-domain", "other.org", ...endpoint, ...id];
  const { document: made } = await json(...create, ...bundle);
  const said = { trustDomain: "other.org", bundleEndpointUrl: url, bundleEndpointProfile: "https_spiffe" };
  assert.deepEqual({ ...made, bundleSequence: null }, { ...said, endpointSpiffeId: id[1], bundleSequence: null });
  assert.deepEqual((await json(...create)).document.error.code, "already-exists");
  await other.json("authority", "prepare");
  assert.deepEqual((await json("federation", "refresh", "--trust-domain", "other.org")).document, {
    refreshed: "other.org",
  });
  assert.equal((await json("bundle", "list", "--id", "other.org")).document.trust_domains["other.org"].keys.length, 3);

  const relationships = {
    trustDomain: "third.org",
    bundleEndpointURL: "https://third.org/",
    bundleEndpointProfile: "https_web",
  };
  const data = join(dir, "relationships.json");
  writeFileSync(data, JSON.stringify({ federationRelationships: [relationships] }));
  await json("federation", "create", "--data", data);
  const { document: listed } = await json("federation", "list");
  assert.deepEqual(
    listed.federationRelationships.map(({ trustDomain }: { trustDomain: string }) => trustDomain),
    ["other.org", "third.org"],
  );
  assert.match((await run("federation", "show", "--trust-domain", "third.org")).out, /profile {3}: https_web/);
  assert.deepEqual((await json("federation", "delete", "--id", "third.org")).document, {
    deleted: ["third.org"],
  });
  assert.match((await run("federation", "create", "--trust-domain", "a.org")).err, /--bundle-endpoint-url/);
  writeFileSync(data, "{}");
  assert.match((await run("federation", "create", "--data", data)).err, /`federationRelationships` is missing/);
});

test("where no server answers, the next step is said", async (t) => {
  const { run, server } = await meshFolder(t);
  await server.close();
  const { code, err } = await run("agent", "list");
  assert.equal(code, 4);
  assert.match(err, /nothing answers .*\n.*everyhop up/);
});

test("server --check says what is wrong, as JSON too", async (t) => {
  const { dir, run, json } = await meshFolder(t);
  assert.deepEqual((await json("server", "--config", join(dir, "server.yaml"), "--check")).document, {
    ok: true,
    issues: [],
  });
  const bad = join(dir, "bad.yaml");
  writeFileSync(bad, "trustDomain: example.com\ndataDir: d\nlisten: x\n");
  const { code, document } = await json("server", "--config", bad, "--check");
  assert.deepEqual([code, document.ok, document.issues[0].line, document.issues[0].file], [2, false, 3, bad]);
  assert.match((await run("server", "--config", bad, "--check")).err, /bad\.yaml:3:9: listen/);
  writeFileSync(
    join(dir, "p.yaml"),
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rulez: []}\n",
  );
  writeFileSync(bad, "trustDomain: example.com\ndataDir: d\npolicies: [p.yaml]\n");
  const policies = await json("server", "--config", bad, "--check");
  assert.deepEqual([policies.code, policies.document.issues[0].line], [2, 4]);
  assert.match(policies.document.issues[0].file, /p\.yaml$/);
});

const ROLES = `roles:
  shop-team:
    members: [spiffe://example.com/ci/shop]
    may: ["entries:read", "entries:write"]
    under: [spiffe://example.com/ns/shop]
`;

test("a team administers its own entries over the network, as who it is", async (t) => {
  const { server, run, json, dir } = await meshFolder(t, ROLES);
  await run("svid", "mint", "--spiffe-id", "spiffe://example.com/ci/shop", "--out-dir", join(dir, "team"));
  const remote = ["--server", server.ready.listen, "--svid-dir", join(dir, "team")];
  const create = (id: string) =>
    json("entry", "create", ...remote, "--spiffe-id", id, "--parent-id", AGENT, "--selector", "unix:uid:0");
  assert.equal((await create(WEB)).document.spiffeId, WEB);
  const refused = await create("spiffe://example.com/ns/bank/sa/web");
  assert.deepEqual([refused.code, refused.document.error.code], [3, "permission-denied"]);
  assert.match(refused.document.error.message, /not under what the role `shop-team` covers/);
  assert.equal((await json("entry", "count", ...remote)).document.count, 1);
  assert.equal((await run("status", ...remote)).code, 3);
  const nobody = await run("entry", "show", "--server", server.ready.listen, "--svid-dir", dir);
  assert.equal(nobody.code, 2);
  assert.match(nobody.err, /svid\.0\.pem[\s\S]*svid fetch --out-dir/);
});

const SET = `apiVersion: everyhop.dev/v1
kind: EntrySet
metadata: {name: shop, labels: {team: shop}}
defaults: {parentId: ${AGENT}}
templates:
  service: {spiffeId: "spiffe://example.com/ns/shop/sa/{account}", selectors: ["unix:user:{account}"]}
entries:
- {template: service, with: {account: [web, api]}}
`;

test("entries from a file: planned, applied, changed, pruned; what another set owns is left alone", async (t) => {
  const { run, json, dir } = await meshFolder(t);
  const file = join(dir, "shop.yaml");
  const counts = ({ document: { sets } }: Awaited<ReturnType<typeof json>>) =>
    sets.map((set: { create: []; update: []; delete: []; unchanged: number }) => [
      set.create.length,
      set.update.length,
      set.delete.length,
      set.unchanged,
    ])[0];
  writeFileSync(file, SET);
  assert.deepEqual(counts(await json("entry", "plan", "shop.yaml")), [2, 0, 0, 0]);
  assert.deepEqual((await json("entry", "show")).document.entries, []);
  const applied = await run("entry", "apply", "shop.yaml");
  assert.match(applied.out, /^shop: 2 created, 0 changed, 0 deleted/);
  assert.deepEqual(counts(await json("entry", "plan", "shop.yaml")), [0, 0, 0, 2]);
  const { document: shown } = await json("entry", "show", "--label", "team=shop");
  assert.deepEqual(shown.entries.map((entry: { labels: object }) => entry.labels)[0], {
    "everyhop.dev/set": "shop",
    team: "shop",
  });
  writeFileSync(
    file,
    SET.replace("[web, api]", "[web]").replace('"unix:user:{account}"', '"unix:user:{account}", "unix:uid:7"'),
  );
  assert.deepEqual(counts(await json("entry", "apply", "shop.yaml")), [0, 1, 1, 0]);
  assert.equal((await json("entry", "count")).document.count, 2, "left without --prune");
  await run("entry", "apply", "shop.yaml", "--prune");
  assert.equal((await json("entry", "count")).document.count, 1);
  writeFileSync(
    join(dir, "other.yaml"),
    SET.replace("name: shop", "name: other")
      .replace("[web, api]", "[web]")
      .replace('"unix:user:{account}"', '"unix:user:{account}", "unix:uid:7"'),
  );
  const conflict = await run("entry", "apply", "other.yaml");
  assert.equal(conflict.code, 3);
  assert.match(conflict.err, /belongs to another set; nothing was changed/);
  writeFileSync(file, SET.replace("spiffe://example.com/ns", "https://example.com/ns"));
  const bad = await run("entry", "plan", "shop.yaml");
  assert.equal(bad.code, 2);
  assert.match(bad.err, /shop\.yaml:8:\d+: .*spiffeId is not a SPIFFE ID/);
});
