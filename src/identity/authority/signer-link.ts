import type { Duplex } from "node:stream";
import { type BackoffRange, backoffMs } from "../../core/base/backoff.ts";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { type EveryhopError, toEveryhopError } from "../../core/base/errors.ts";
import type { LogPage } from "../../io/chained-log/chained-log.ts";
import type { HeldKey, Intent, KeyUse, Permit, SetUp, Setup } from "../intent/intent.ts";
import type { KeyType } from "../intent/key-type.ts";
import type { SigningService } from "../intent/service.ts";
import { SignerClient } from "./signer-client.ts";

/** A signer that was started. */
export interface StartedSigner {
  readonly socket: Duplex;
  /** Its process; null where it has none of its own. */
  readonly pid: number | null;
  /** Resolves once it is gone; kills it where it does not end by itself, as it does when its socket has ended. */
  stop(): Promise<void>;
}

export interface SignerLinkOptions {
  /** Starts a signer. Errors: whatever keeps it from starting. */
  readonly start: () => StartedSigner;
  readonly setup: Setup;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
}

export interface SignerState {
  readonly running: boolean;
  /** How often it was started again. */
  readonly restarts: number;
  /** Why it does not run; null while it does. */
  readonly error: EveryhopError | null;
}

const RESTART: BackoffRange = { firstMs: 100, maxMs: 10_000 };
/** After a refusal of the PIN, the keys' rights or such: a token locks itself after a few wrong PINs. */
const REFUSED_MS = 600_000;
/** A signer that runs this long was no failure to start. */
const SETTLED_MS = 60_000;

/** The signer, started again whenever it ends. While it is away every call fails with `unavailable`: fail closed. */
export class SignerLink implements SigningService {
  readonly durable: boolean;
  readonly keys: Cell<ReadonlyMap<string, HeldKey>>;
  readonly state = new Cell<SignerState>({ running: true, restarts: 0, error: null });
  /** What the signer said when it was first started. */
  readonly setUp: SetUp;
  readonly #options: SignerLinkOptions;
  #current: { readonly client: SignerClient; readonly signer: StartedSigner };
  #attempt = 0;
  #startedAt: number;
  #closed = false;
  #cancel = (): void => {};

  private constructor(options: SignerLinkOptions, current: Connected) {
    this.#options = options;
    this.#current = current;
    this.#startedAt = options.clock.now();
    this.setUp = current.setUp;
    this.durable = current.setUp.durable;
    this.keys = new Cell(byId(current.setUp.keys));
    this.#watch();
  }

  /** Errors: those of the signer's setup (`storage-failed`, `permission-denied`, `unavailable`, …). */
  static async open(options: SignerLinkOptions): Promise<SignerLink> {
    return new SignerLink(options, await connect(options));
  }

  async createKey(use: KeyUse, type: KeyType): Promise<HeldKey> {
    const key = await this.#current.client.createKey(use, type);
    this.#setKey(key);
    return key;
  }

  prepare(intent: Intent): Promise<Permit> {
    return this.#current.client.prepare(intent);
  }

  sign(permit: Permit): Promise<Uint8Array> {
    return this.#current.client.sign(permit);
  }

  async adopt(id: string, chain: readonly Uint8Array[]): Promise<void> {
    await this.#current.client.adopt(id, chain);
    const key = this.keys.value.get(id);
    if (key !== undefined) {
      this.#setKey({ ...key, chain });
    }
  }

  async discard(use: KeyUse, id: string): Promise<void> {
    await this.#current.client.discard(use, id);
    this.keys.set(new Map([...this.keys.value].filter(([other]) => other !== id)));
  }

  log(after: number): Promise<LogPage> {
    return this.#current.client.log(after);
  }

  /** Of the process that runs now. */
  get pid(): number | null {
    return this.#current.signer.pid;
  }

  /** Ends the signer, and waits until its socket has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cancel();
    const { client, signer } = this.#current;
    client.close();
    await signer.stop();
    await client.ended;
  }

  #setKey(key: HeldKey): void {
    this.keys.set(new Map(this.keys.value).set(key.id, key));
  }

  #watch(): void {
    this.#current.client.ended.then((error) => {
      void this.#current.signer.stop();
      if (this.#options.clock.now() - this.#startedAt >= SETTLED_MS) {
        this.#attempt = 0;
      }
      this.#retry(error);
    });
  }

  #retry(error: EveryhopError): void {
    if (this.#closed) {
      return;
    }
    const { clock, random } = this.#options;
    this.state.set({ ...this.state.value, running: false, error });
    const wait = error.code === "permission-denied" ? REFUSED_MS : backoffMs(this.#attempt++, RESTART, random());
    this.#cancel = clock.after(wait, () => {
      connect(this.#options).then(
        (connected) => this.#connected(connected),
        (failure: unknown) => this.#retry(toEveryhopError(failure)),
      );
    });
  }

  #connected(connected: Connected): void {
    if (this.#closed) {
      connected.client.close();
      void connected.signer.stop();
      return;
    }
    this.#current = connected;
    this.#startedAt = this.#options.clock.now();
    this.#watch();
    this.state.set({ running: true, restarts: this.state.value.restarts + 1, error: null });
    this.keys.set(byId(connected.setUp.keys));
  }
}

interface Connected {
  readonly client: SignerClient;
  readonly signer: StartedSigner;
  readonly setUp: SetUp;
}

async function connect({ start, setup }: SignerLinkOptions): Promise<Connected> {
  const signer = start();
  const client = new SignerClient(signer.socket);
  try {
    return { client, signer, setUp: await client.setup(setup) };
  } catch (error) {
    client.close();
    await signer.stop();
    throw error;
  }
}

function byId(keys: readonly HeldKey[]): ReadonlyMap<string, HeldKey> {
  return new Map(keys.map((key) => [key.id, key]));
}
