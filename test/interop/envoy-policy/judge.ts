/** Decides generated requests with a real Envoy, and compares what it says with what the engine says. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { testCa, testKey, testLeaf } from "../../../src/core/x509/fixture.ts";
import { pem } from "../../../src/io/tls.ts";
import type { Scenario } from "../../reference/generate.ts";
import type { Line } from "../../reference/generate-requests.ts";
import type { Minter } from "../../reference/mint.ts";
import { bootstrap, type Filters, listenersOf, type Place } from "./config.ts";
import { authFilter, withAuthHeader } from "./validated.ts";
import { askTcp, HttpAsker, type Identity, requestBytes, type Target, type WireAnswer } from "./wire.ts";

/** One scenario with the filters that somebody made of its policies. */
export interface Case {
  readonly scenario: Scenario;
  readonly filters: Filters;
  readonly place: Place;
}

/** Two ports that were free a moment ago. */
export async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()];
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve) => {
          server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port));
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports as [number, number];
}

/** The address of the n-th scenario: an own one each, so that all use the same ports. */
export const placeOf = (index: number): string => `127.77.${index >> 8}.${index & 255}`;

export class EnvoyJudge {
  readonly #binary: string;
  readonly #minter: Minter;
  readonly #folder = mkdtempSync(join(tmpdir(), "everyhop-envoy-"));
  readonly #now = Date.now();
  readonly #ca = testCa("judge", this.#period());
  readonly #identities = new Map<string, Identity>();

  constructor(binary: string, minter: Minter) {
    this.#binary = binary;
    this.#minter = minter;
  }

  #period() {
    return { notBeforeMs: this.#now - 3_600_000, notAfterMs: this.#now + 24 * 3_600_000 };
  }

  #identity(principal: string): Identity {
    const known = this.#identities.get(principal);
    if (known !== undefined) {
      return known;
    }
    const key = testKey();
    const leaf = testLeaf(this.#ca, `spiffe://${principal}`, this.#period(), key);
    const identity = {
      cert: pem("CERTIFICATE", leaf),
      key: pem("PRIVATE KEY", key.key.export({ format: "der", type: "pkcs8" })),
      ca: pem("CERTIFICATE", this.#ca.der),
    };
    this.#identities.set(principal, identity);
    return identity;
  }

  /** Answers per case and request, in order; null where the request was not asked. */
  async decide(
    cases: readonly Case[],
    asks: (scenario: Scenario, line: Line) => boolean,
  ): Promise<(WireAnswer | null)[][]> {
    const stop = await this.#start(cases);
    try {
      const answers: (WireAnswer | null)[][] = cases.map(() => []);
      let next = 0;
      const worker = async (): Promise<void> => {
        for (let index = next++; index < cases.length; index = next++) {
          answers[index] = await this.#decideCase(cases[index] as Case, asks);
        }
      };
      await Promise.all(Array.from({ length: 8 }, worker));
      return answers;
    } finally {
      await stop();
    }
  }

  async #decideCase({ scenario, place }: Case, asks: (scenario: Scenario, line: Line) => boolean) {
    const answers: (WireAnswer | null)[] = [];
    const askers = new Map<string, HttpAsker>();
    for (const line of scenario.requests) {
      answers.push(asks(scenario, line) ? await this.#ask(line, place, askers) : null);
    }
    for (const asker of askers.values()) {
      asker.close();
    }
    return answers;
  }

  async #ask(line: Line, place: Place, askers: Map<string, HttpAsker>): Promise<WireAnswer> {
    const { principal, ip } = line.source as { principal?: string; ip: string };
    const sni = (line.destination.sni as string | undefined) ?? null;
    const target: Target = {
      ip: place.ip,
      port: line.request === undefined ? place.tcpPort : place.httpPort,
      sourceIp: ip,
      identity: principal === undefined ? null : this.#identity(principal),
      sni,
    };
    if (line.request === undefined) {
      return askTcp(target);
    }
    const key = JSON.stringify([principal, ip, sni]);
    const asker = askers.get(key) ?? new HttpAsker(target);
    askers.set(key, asker);
    return asker.ask(requestBytes(withAuthHeader(line, this.#minter)), line.request.method === "HEAD");
  }

  async #start(cases: readonly Case[]): Promise<() => Promise<void>> {
    const own = this.#identity("judge.td/server");
    const files = {
      ca: join(this.#folder, "ca.pem"),
      certificate: join(this.#folder, "crt.pem"),
      key: join(this.#folder, "key.pem"),
    };
    writeFileSync(files.ca, own.ca);
    writeFileSync(files.certificate, own.cert);
    writeFileSync(files.key, own.key, { mode: 0o600 });
    const listeners = cases.flatMap(({ scenario, filters, place }) => {
      const hasTokens = scenario.documents.some(({ kind }) => kind === "RequestAuthentication");
      const http = hasTokens ? filters.http : [authFilter(this.#minter.jwks), ...filters.http];
      return listenersOf(scenario, { ...filters, http }, place, files);
    });
    const config = join(this.#folder, "envoy.json");
    writeFileSync(config, JSON.stringify(bootstrap(listeners)));
    const args = ["-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
    const child = spawn(this.#binary, args, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => {
      said = `${said}${chunk.toString()}`.slice(-20_000);
    });
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    const last = cases.at(-1)?.place as Place;
    const probe: Target = { ip: last.ip, port: last.tcpPort, sourceIp: "127.0.0.1", identity: null, sni: null };
    while (!(await reachable(probe))) {
      if (child.exitCode !== null) {
        throw new Error(`Envoy ended: ${said}`);
      }
      await delay(50);
    }
    return async () => {
      child.kill("SIGKILL");
      await ended;
    };
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function reachable(target: Target): Promise<boolean> {
  const { connect } = await import("node:net");
  return new Promise((resolve) => {
    const socket = connect({ host: target.ip, port: target.port });
    socket.once("error", () => resolve(false));
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
  });
}
