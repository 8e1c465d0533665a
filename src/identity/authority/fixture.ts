/** What tests of the authority need from outside. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { duplexPair } from "node:stream";
import type { TestContext } from "node:test";
import type { Clock } from "../../core/base/clock.ts";
import { type KeyStore, memoryKeyStore } from "../../io/keys.ts";
import type { Ceilings, Setup } from "../intent/intent.ts";
import { serveSigner } from "../signer/serve.ts";
import { fileVault } from "../signer/vault.ts";
import type { IssuanceIntent, Journal } from "./journal.ts";
import { SignerLink, type StartedSigner } from "./signer-link.ts";

/** A journal in memory that also says in which order it was written. */
export class RecordingJournal implements Journal {
  readonly intents: IssuanceIntent[] = [];
  readonly records = new Map<string, Uint8Array>();
  /** Makes the next `intend` fail. */
  failNext = false;

  intend(intent: IssuanceIntent): void {
    if (this.failNext) {
      this.failNext = false;
      throw new Error("the disk is full");
    }
    this.intents.push(intent);
  }

  record(serial: string, issued: Uint8Array): void {
    if (!this.intents.some((intent) => intent.serial === serial)) {
      throw new Error("recorded before it was intended");
    }
    this.records.set(serial, issued);
  }
}

export const TEST_CEILINGS: Ceilings = {
  maxX509SvidTtlMs: 24 * 3_600_000,
  maxJwtSvidTtlMs: 24 * 3_600_000,
  maxCaTtlMs: 366 * 24 * 3_600_000,
  maxPerSecond: 10_000,
  downstream: true,
};

export interface LocalSignerOptions {
  readonly clock: Clock;
  /** Default: in memory, and said to be durable, so that what they hold has to be there after a restart. */
  readonly keys?: KeyStore;
  readonly durable?: boolean;
}

/** A signer in this process, behind the real wire, on a clock of the test's. */
export function localSigner(setup: Setup, { clock, keys, durable = true }: LocalSignerOptions): Promise<SignerLink> {
  const start = (): StartedSigner => {
    const store = keys ?? memoryKeyStore();
    const [near, far] = duplexPair();
    const served = serveSigner(far, {
      now: () => clock.now(),
      random: randomBytes,
      openVault: async () => fileVault(store, durable),
    });
    const stop = async (): Promise<void> => {
      near.end();
      await served;
      near.destroy();
    };
    return { socket: near, pid: null, stop };
  };
  return SignerLink.open({ start, setup, clock, random: () => 0.5 });
}

export interface TestSignerOptions extends LocalSignerOptions {
  readonly trustDomain?: string;
  readonly ceilings?: Partial<Ceilings>;
  readonly logDir?: string;
}

/** The same, whose log goes with the test. */
export async function testSigner(t: TestContext, options: TestSignerOptions): Promise<SignerLink> {
  const { trustDomain = "example.com", ceilings } = options;
  const logDir = options.logDir ?? mkdtempSync(join(tmpdir(), "everyhop-signer-"));
  const setup = { trustDomain, keys: { kind: "memory" }, logDir, ceilings: { ...TEST_CEILINGS, ...ceilings } } as const;
  const link = await localSigner(setup, options);
  t.after(async () => {
    await link.close();
    if (options.logDir === undefined) {
      rmSync(logDir, { recursive: true, force: true });
    }
  });
  return link;
}
