/** The files of a published SPIRE guide, and SPIRE's command line, on our server: as they are. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "../../src/io/log.ts";
import { startServer } from "../../src/run/server.ts";
import { readServerFile } from "../../src/run/server-config.ts";
import { peer, skipWithout } from "../peers.ts";

const BIN = join(import.meta.dirname, "../../bin");

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A server from a file in SPIRE's words, and commands with the shims first on the path that find it as SPIRE's would. */
async function served(t: TestContext, text: string) {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-spire-"));
  const file = join(dir, "server.conf");
  writeFileSync(file, `${text}\neveryhop { listen = "127.0.0.1:0" http = "127.0.0.1:0" xds = "127.0.0.1:0" }\n`);
  const { config } = readServerFile(file);
  const adminSocket = join(dir, "api.sock");
  const server = await startServer({ ...config, dataDir: join(dir, "data"), adminSocket }, { log: silentLog });
  t.after(async () => {
    await server.close();
    rmSync(dir, { recursive: true });
  });
  writeFileSync(join(dir, "mesh.json"), JSON.stringify({ adminSocket }));
  const env = { ...process.env, PATH: `${BIN}${delimiter}${process.env.PATH}` };
  const run = (command: string, ...args: readonly string[]): Promise<Outcome> =>
    new Promise((resolve) => {
      execFile(command, args, { cwd: dir, env }, (error, out, err) => {
        resolve({ code: typeof error?.code === "number" ? error.code : 0, out, err });
      });
    });
  const spire = (...args: readonly string[]) => run("spire-server", ...args, "-socketPath", adminSocket);
  return { dir, server, run, spire };
}

const LEAST = 'server { trust_domain = "example.com" data_dir = "/nowhere" }';

test("the guide's entries.sh runs as it is, and is told what its entries lack", async (t) => {
  if (skipWithout(t, "conformance")) {
    return;
  }
  const guide = join(peer("conformance") as string, "configs");
  const { run, spire, server } = await served(t, readFileSync(join(guide, "spire-server.conf"), "utf8"));
  const { code, out, err } = await run("bash", join(guide, "entries.sh"));
  assert.equal(code, 0, err);
  assert.deepEqual(
    server.registry
      .entries()
      .map(({ spiffeId }) => spiffeId)
      .sort(),
    [
      "spiffe://example.com/ns/data/sa/postgres-proxy",
      "spiffe://example.com/ns/production/sa/api-gateway",
      "spiffe://example.com/ns/production/sa/payment-service",
    ],
  );
  assert.equal(out.match(/^Entry ID {9}: [0-9a-f-]{36}$/gm)?.length, 3);
  assert.equal(err.match(/`spiffe:\/\/example\.com\/agent` is no agent's ID and no node alias/g)?.length, 3);
  assert.match(err, /entry create -node -spiffeID spiffe:\/\/example\.com\/agent -selector/);
  const alias = ["-node", "-spiffeID", "spiffe://example.com/agent", "-selector", "k8s_psat:cluster:production"];
  assert.equal((await spire("entry", "create", ...alias)).err, "");
  const more = [
    "-spiffeID",
    "spiffe://example.com/x",
    "-parentID",
    "spiffe://example.com/agent",
    "-selector",
    "unix:uid:1",
  ];
  assert.equal((await spire("entry", "create", ...more)).err, "", "the alias mends it");
});

test("entries in SPIRE's words: text that scripts read, JSON that is protojson, exit codes", async (t) => {
  const { spire, dir } = await served(t, LEAST);
  const fields = ["-spiffeID", "spiffe://example.com/web", "-parentID", "spiffe://example.com/spire/agent/x"];
  const made = await spire(
    "entry",
    "create",
    ...fields,
    "-selector",
    "unix:uid:1",
    "-x509SVIDTTL",
    "60",
    "-dns",
    "web",
  );
  assert.match(
    made.out,
    /^Entry ID {9}: (\S+)\nSPIFFE ID {8}: spiffe:\/\/example\.com\/web\nParent ID {8}: .+\nRevision {9}: 0\nX509-SVID TTL {4}: 60\nJWT-SVID TTL {5}: default\nSelector {9}: unix:uid:1\nDNS name {9}: web\n\n$/,
  );
  const again = await spire("entry", "create", ...fields, "-selector", "unix:uid:1");
  assert.equal(again.code, 1);
  assert.match(again.err, /Failed to create the following entry \(code: AlreadyExists, msg: /);
  const shown = await spire("entry", "show", "-output", "json");
  const { entries } = JSON.parse(shown.out);
  assert.equal(entries[0].spiffe_id.path, "/web");
  assert.deepEqual(
    [entries[0].expires_at, entries[0].jwt_svid_ttl, entries[0].admin],
    ["0", 0, false],
    "nothing is left out",
  );
  const data = join(dir, "entries.json");
  writeFileSync(data, shown.out);
  assert.equal(
    (await spire("entry", "delete", "-entryID", entries[0].id)).out.trim().split("\n").at(-1),
    "Deleted 1 entry successfully",
  );
  assert.equal((await spire("entry", "create", "-data", data)).code, 0, "what was shown can be brought back");
  assert.equal((await spire("entry", "count")).out, "1 registration entry\n");
  assert.deepEqual(
    (await spire("entry", "show", "-entryID", "nope")).err.split("\n")[0],
    "Error: rpc error: code = NotFound desc = entry `nope` not found",
  );
  assert.deepEqual((await spire("entry", "show", "-spifeID", "x")).code, 1);
});

test("tokens, agents, bundles, minting, authorities and health, as scripts ask for them", async (t) => {
  const { spire, run, dir } = await served(t, LEAST);
  assert.match(
    (await spire("token", "generate", "-ttl", "60")).out,
    /^Token: [0-9a-f-]{36}\nWarning: Missing SPIFFE ID\.\n$/,
  );
  assert.equal((await spire("agent", "list")).out, "No attested agents found\n");
  assert.deepEqual(JSON.parse((await spire("agent", "list", "-output", "json")).out), {
    agents: [],
    next_page_token: "",
  });
  assert.match((await spire("bundle", "show")).out, /^-----BEGIN CERTIFICATE-----/);
  assert.equal((await run("spire-server", "healthcheck")).out, "Server is healthy.\n", "found by its folder");
  assert.match(
    (await spire("localauthority", "x509", "show")).out,
    /^Active X\.509 authority:\n {2}Authority ID: [0-9a-f]+\n/,
  );
  const token = (await spire("jwt", "mint", "-spiffeID", "spiffe://example.com/web", "-audience", "db")).out.trim();
  assert.equal(token.split(".").length, 3);
  await spire("x509", "mint", "-spiffeID", "spiffe://example.com/web", "-write", dir);
  assert.equal(statSync(join(dir, "key.pem")).mode & 0o777, 0o600);
  assert.match(readFileSync(join(dir, "svid.pem"), "utf8"), /BEGIN CERTIFICATE/);
  assert.equal((await run("spire-server", "entri", "show")).code, 127);
  assert.match((await run("spire-agent", "validate", "-config", join(dir, "server.conf"))).err, /block `agent/);
});
