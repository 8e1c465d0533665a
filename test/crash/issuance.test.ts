import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { parseTrustDomain } from "../../src/core/spiffe/id.ts";
import { Authority } from "../../src/identity/authority/authority.ts";
import { localSigner, TEST_CEILINGS } from "../../src/identity/authority/fixture.ts";
import { auditCertificates } from "../../src/identity/server/audit.ts";
import { storeJournal } from "../../src/identity/server/journal.ts";
import { readSignerLog } from "../../src/identity/server/signer-log.ts";
import { systemClock } from "../../src/io/clock.ts";
import { diskKeyStore } from "../../src/io/keys.ts";
import { diskStateFile } from "../../src/io/state-file.ts";
import { openSqliteStore } from "../../src/io/store/sqlite.ts";

const FIXTURE = join(import.meta.dirname, "server-fixture.ts");

interface Round {
  readonly name: string;
  /** Where the server kills itself, and which time it comes by. */
  readonly server?: readonly [string, number];
  readonly signer?: readonly [string, number];
  /** Killed from outside, after so many certificates. */
  readonly kill?: { readonly who: readonly ("server" | "signer")[]; readonly after: number };
}

/** Where only the signer dies, the server goes on: it is ended after this many more. */
const MORE = 20;

const ROUNDS: readonly Round[] = [
  { name: "the signer before it logged its first CA", signer: ["before-log", 1] },
  { name: "the signer between log and signature of a CA", signer: ["after-log", 1] },
  { name: "the server before the first intent", server: ["before-intend", 1] },
  { name: "the server between intent and signature", server: ["after-intend", 7] },
  { name: "the server between signature and record", server: ["before-record", 7] },
  { name: "the server between record and answer", server: ["after-record", 7] },
  { name: "the signer between log and signature", signer: ["after-log", 3] },
  { name: "the signer between signature and answer", signer: ["after-sign", 3] },
  { name: "the server, at any moment", kill: { who: ["server"], after: 23 } },
  { name: "the signer, at any moment", kill: { who: ["signer"], after: 31 } },
  { name: "both at once, at any moment", kill: { who: ["signer", "server"], after: 17 } },
];

/** Runs a round to its end; serial and certificate of what was handed out. */
function run(dir: string, { server = ["", 0], signer = ["", 0], kill }: Round): Promise<Map<string, string>> {
  return new Promise((resolve, reject) => {
    const args = [FIXTURE, dir, ...server, ...signer].map(String);
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    const issued = new Map<string, string>();
    const end = (kill?.after ?? 0) + MORE;
    let [rest, signerPid, killed] = ["", 0, false];
    const onLine = (line: string): void => {
      const [word, first = "", second = ""] = line.split(" ");
      if (word === "signer") {
        signerPid = Number(first);
        return;
      }
      issued.set(first, second);
      if (kill !== undefined && issued.size >= kill.after && !killed) {
        killed = true;
        for (const who of kill.who) {
          process.kill(who === "server" ? (child.pid ?? 0) : signerPid, "SIGKILL");
        }
      }
      if (issued.size >= end) {
        child.kill("SIGKILL");
      }
    };
    child.stdout.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split("\n");
      rest = lines.pop() ?? "";
      lines.forEach(onLine);
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (signal === "SIGKILL") {
        resolve(issued);
      } else {
        reject(new Error(`the server exited with ${code}`));
      }
    });
  });
}

async function open(t: TestContext, dir: string) {
  const store = await openSqliteStore(join(dir, "server.db"));
  const setup = { trustDomain: "example.com", keys: { kind: "memory" }, ceilings: TEST_CEILINGS } as const;
  const keys = await diskKeyStore(join(dir, "keys"));
  const signer = await localSigner({ ...setup, logDir: join(dir, "signer-log") }, { clock: systemClock, keys });
  const kept = diskStateFile(join(dir, "authorities.json"));
  const journal = storeJournal(store.issuance, systemClock);
  const trustDomain = parseTrustDomain("example.com");
  const authority = await Authority.open({ trustDomain, signer, kept, journal, clock: systemClock });
  t.after(async () => {
    await authority.close();
    await signer.close();
    await store.close();
  });
  return { store, signer, authority };
}

test("killed at any point, server, signer or both: no record is lost, no serial comes twice, nothing is signed without an intent", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-crash-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const handedOut = new Map<string, string>();
  for (const round of ROUNDS) {
    await t.test(`killed: ${round.name}`, async () => {
      for (const [serial, der] of await run(dir, round)) {
        assert.equal(handedOut.has(serial), false, "a serial number of an earlier round");
        handedOut.set(serial, der);
      }
    });
  }
  const { store, signer, authority } = await open(t, dir);
  for (const [serial, der] of handedOut) {
    const record = await store.issuance.get(serial);
    assert.equal(Buffer.from(record?.issued ?? []).toString("hex"), der, "handed out, so recorded");
    assert.equal(record?.entryId, "e1");
  }
  const seen = [...handedOut.keys()].map((serial) => ({ serial, spiffeId: "", seenBy: "test" }));
  const log = await readSignerLog(signer);
  const audit = await auditCertificates({ store: store.issuance, seen, log, now: Date.now() });
  assert.deepEqual([audit.duplicates, audit.unknown, audit.mismatches, audit.unlogged], [0, [], [], []]);
  assert.ok(audit.issued >= handedOut.size && audit.unfinished > 0);
  assert.equal(authority.bundle.value.x509Authorities.length, 1, "each start found the CA of the one before");
  assert.equal(signer.keys.value.size, 2, "and no key is left that nobody uses");
});
