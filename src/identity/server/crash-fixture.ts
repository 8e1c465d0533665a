/** A process that signs without end, and says of each certificate that it handed it out. Killed by crash.test.ts. */
import { generateKeyPairSync } from "node:crypto";
import { writeSync } from "node:fs";
import { join } from "node:path";
import { parseSpiffeId, parseTrustDomain } from "../../core/spiffe/id.ts";
import { systemClock } from "../../io/clock.ts";
import { diskKeyStore } from "../../io/keys.ts";
import { diskStateFile } from "../../io/state-file.ts";
import { openSqliteStore } from "../../io/store/sqlite.ts";
import { Authority } from "../authority/authority.ts";
import { localSigner, TEST_CEILINGS } from "../authority/fixture.ts";
import { storeJournal } from "./journal.ts";

export async function openAuthority(dir: string) {
  const store = await openSqliteStore(join(dir, "server.db"));
  const authority = await Authority.open({
    trustDomain: parseTrustDomain("example.com"),
    signer: await localSigner(
      {
        trustDomain: "example.com",
        keys: { kind: "memory" },
        logDir: join(dir, "signer-log"),
        ceilings: TEST_CEILINGS,
      },
      { clock: systemClock, keys: await diskKeyStore(join(dir, "keys")) },
    ),
    kept: diskStateFile(join(dir, "authorities.json")),
    journal: storeJournal(store.issuance, systemClock),
    clock: systemClock,
  });
  return { store, authority };
}

async function signForEver(dir: string): Promise<never> {
  const { authority } = await openAuthority(dir);
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ format: "der", type: "spki" });
  const spiffeId = parseSpiffeId("spiffe://example.com/web");
  for (;;) {
    const batch = Array.from({ length: 5 }, () =>
      authority.issueX509Svid({ publicKey: { spki }, spiffeId, entryId: "e1" }),
    );
    for (const { serial, chain } of await Promise.all(batch)) {
      // Synchronous: what was written is in the pipe, also when the process is killed in the next moment.
      writeSync(1, `${serial} ${Buffer.from(chain[0] ?? []).toString("hex")}\n`);
    }
  }
}

const [, script = "", dir] = process.argv;
if (script.endsWith("crash-fixture.ts") && dir !== undefined) {
  await signForEver(dir);
}
