/**
 * A server's authority, with a signer in a process of its own, that issues without end, and says of each certificate that it handed it
 * out. Arguments: the folder; where it kills itself, and which time; where its first signer kills itself, and which time.
 */
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, writeSync } from "node:fs";
import { join } from "node:path";
import { EveryhopError } from "../../src/core/base/errors.ts";
import { parseSpiffeId, parseTrustDomain } from "../../src/core/spiffe/id.ts";
import { Authority } from "../../src/identity/authority/authority.ts";
import { TEST_CEILINGS } from "../../src/identity/authority/fixture.ts";
import type { Journal } from "../../src/identity/authority/journal.ts";
import { SignerLink } from "../../src/identity/authority/signer-link.ts";
import { storeJournal } from "../../src/identity/server/journal.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { diskStateFile } from "../../src/io/state-file.ts";
import { openSqliteStore } from "../../src/io/store/sqlite.ts";
import { startSigner } from "../../src/run/signer-process.ts";

const [, , dir = "", point = "", nth = "0", signerPoint = "", signerNth = "0"] = process.argv;
const SIGNER = join(import.meta.dirname, "signer-fixture.ts");
const say = (line: string): void => {
  // Synchronous: what was written is in the pipe, also when the process is killed in the next moment.
  writeSync(1, `${line}\n`);
};

let left = Number(nth);
function at(name: string): void {
  if (name === point && --left === 0) {
    process.kill(process.pid, "SIGKILL");
  }
}

function crashing(journal: Journal): Journal {
  return {
    async intend(intent) {
      at("before-intend");
      await journal.intend(intent);
      at("after-intend");
    },
    async record(serial, issued) {
      at("before-record");
      await journal.record(serial, issued);
      at("after-record");
    },
  };
}

let starts = 0;
function start() {
  const program = [SIGNER, ...(starts++ === 0 ? [signerPoint, signerNth] : [])];
  const started = startSigner({ keys, logDir, log: silentLog, program });
  say(`signer ${started.pid}`);
  return started;
}

const keys = { kind: "disk", dir: join(dir, "keys") } as const;
const logDir = join(dir, "signer-log");
mkdirSync(keys.dir, { recursive: true, mode: 0o700 });
mkdirSync(logDir, { recursive: true, mode: 0o700 });
const store = await openSqliteStore(join(dir, "server.db"));
const setup = { trustDomain: "example.com", keys, logDir, ceilings: TEST_CEILINGS };
const hold = setInterval(() => {}, 1_000_000);
const signer = await SignerLink.open({ start, setup, clock: systemClock, random: () => 0 });
let authority: Authority | null = null;
const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const request = {
  publicKey: { spki: publicKey.export({ format: "der", type: "spki" }) },
  spiffeId: parseSpiffeId("spiffe://example.com/web"),
  entryId: "e1",
};
while (hold.hasRef()) {
  try {
    authority ??= await Authority.open({
      trustDomain: parseTrustDomain("example.com"),
      signer,
      kept: diskStateFile(join(dir, "authorities.json")),
      journal: crashing(storeJournal(store.issuance, systemClock)),
      clock: systemClock,
    });
    const from: Authority = authority;
    for (const { serial, chain } of await Promise.all(Array.from({ length: 5 }, () => from.issueX509Svid(request)))) {
      say(`issued ${serial} ${Buffer.from(chain[0] ?? []).toString("hex")}`);
    }
  } catch (error) {
    if (!(error instanceof EveryhopError) || error.code !== "unavailable") {
      throw error;
    }
    // The signer is away: it is asked again once it is back.
    await new Promise<void>((resolve) => {
      const unwatch = signer.state.watch(({ running }) => {
        if (running) {
          unwatch();
          resolve();
        }
      });
      if (signer.state.value.running) {
        setImmediate(resolve);
      }
    });
  }
}
