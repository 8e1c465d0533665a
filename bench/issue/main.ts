/**
 * X.509-SVIDs and JWT-SVIDs in one process, a hundred at once, from key or certification request to the finished chain: key checked, built,
 * linted, intended (in memory), logged, signed. Beside it the floor, which is what the signature and the request's own signature cost alone,
 * and verification as each handshake does it. Then the full path, with processes, store and disk, in batches.
 */
import { generateKeyPairSync, sign, verify } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseSpiffeId, parseTrustDomain } from "../../src/core/spiffe/id.ts";
import { verifyJwtSvid } from "../../src/core/spiffe/jwt-svid.ts";
import { verifyX509Svid } from "../../src/core/spiffe/x509-svid.ts";
import { publicKeyFromSpki } from "../../src/core/x509/algorithm.ts";
import { testCsr } from "../../src/core/x509/fixture.ts";
import { Authority } from "../../src/identity/authority/authority.ts";
import { localSigner, TEST_CEILINGS } from "../../src/identity/authority/fixture.ts";
import { systemClock } from "../../src/io/clock.ts";
import { memoryStateFile } from "../../src/io/state-file.ts";
import { fullPath } from "./full-path.ts";

const quick = process.argv.includes("--quick");
const ROUNDS = 5;
const PER_ROUND_MS = quick ? 50 : 400;

/** Median CPU microseconds of one call. */
async function cost(action: () => unknown, atOnce = 20): Promise<number> {
  const rounds: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const before = process.cpuUsage();
    const end = performance.now() + PER_ROUND_MS;
    let calls = 0;
    while (performance.now() < end) {
      for (let i = 0; i < atOnce; i++) {
        await action();
      }
      calls += atOnce;
    }
    const { user, system } = process.cpuUsage(before);
    rounds.push((user + system) / calls);
  }
  // The first round warms up.
  return rounds.slice(1).sort((left, right) => left - right)[ROUNDS >> 1] as number;
}

const BATCH = 100;

/** The same of each of a batch: what is asked for at once shares the way to the signer, and the disk. */
async function costInBatches(action: () => Promise<unknown>): Promise<number> {
  return (await cost(() => Promise.all(Array.from({ length: BATCH }, action)), 1)) / BATCH;
}

function line(name: string, micros: number, beside = ""): void {
  const rate = Math.round(1e6 / micros).toLocaleString("en");
  console.log(`${name.padEnd(44)} ${micros.toFixed(1).padStart(8)} µs ${rate.padStart(9)}/s  ${beside}`.trimEnd());
}

const trustDomain = parseTrustDomain("example.com");
const spiffeId = parseSpiffeId("spiffe://example.com/ns/production/sa/payment-service");
const journal = { intend(): void {}, record(): void {} };
const logDir = mkdtempSync(join(tmpdir(), "everyhop-bench-"));
const ceilings = { ...TEST_CEILINGS, maxPerSecond: 1_000_000 };
const signer = await localSigner({ trustDomain, keys: { kind: "memory" }, logDir, ceilings }, { clock: systemClock });
const authority = await Authority.open({ trustDomain, signer, kept: memoryStateFile(), journal, clock: systemClock });

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const spki = publicKey.export({ format: "der", type: "spki" });
const csr = testCsr({ key: privateKey, spki });
const message = Buffer.alloc(400, 7);
const signature = sign("sha256", message, privateKey);
const request = { spiffeId, entryId: "bench", dnsNames: ["payment-service.production"] };
const svid = await authority.issueX509Svid({ ...request, publicKey: { spki } });
const jwt = await authority.issueJwtSvid({ spiffeId, audiences: ["bench"], entryId: "bench" });

const signing = await cost(() => sign("sha256", message, privateKey));
const verifying = await cost(() => verify("sha256", message, publicKey, signature));
const verifyingRequest = await cost(() => verify("sha256", message, publicKeyFromSpki(spki), signature));
const fromKey = await costInBatches(() => authority.issueX509Svid({ ...request, publicKey: { spki } }));
const fromCsr = await costInBatches(() => authority.issueX509Svid({ ...request, publicKey: { csr } }));
const token = await costInBatches(() => authority.issueJwtSvid({ spiffeId, audiences: ["bench"], entryId: "bench" }));
const bundle = () => authority.bundle.value;
const handshake = await cost(() => verifyX509Svid(svid.chain, bundle, Date.now()));
const bearer = await cost(() => verifyJwtSvid(jwt.token, bundle, "bench", Date.now()));

const times = (micros: number, floor: number): string => `${(micros / floor).toFixed(1)}x the floor`;
line("ECDSA P-256 signature (floor of a key)", signing);
line("ECDSA P-256 verification", verifying);
line("X.509-SVID for a key", fromKey, times(fromKey, signing));
line("X.509-SVID for a certification request", fromCsr, times(fromCsr, signing + verifying));
line("JWT-SVID", token, times(token, signing));
line("verify an X.509-SVID (each handshake)", handshake, times(handshake, verifying));
line("verify a JWT-SVID", bearer, times(bearer, verifying));
await authority.close();
await signer.close();
rmSync(logDir, { recursive: true });

const floor = verifyingRequest + signing;
const full = await fullPath(quick ? 1_500 : 6_000);
const both = full.server + full.signer;
const rate = Math.round(full.svids / full.seconds).toLocaleString("en");
console.log("\nthe full path: a server's process and its signer's, an agent that asks over mutual TLS, batches of 100");
line("floor: verify a request (key imported), sign", floor);
line("CPU of the server for each X.509-SVID", full.server, times(full.server, floor));
line("CPU of the signer for each", full.signer, times(full.signer, floor));
line("both", both, times(both, floor));
console.log(`${rate} X.509-SVIDs/s by the clock, the client's process on the same machine`);
console.log(`SPIRE's server, measured on such a machine: 400 to 500 µs each; this is ${(both / 450).toFixed(2)} of it`);
