import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { testFolder, until } from "../../src/identity/agent/fixture.ts";
import { FakeServer } from "../../src/identity/agent/server-fixture.ts";
import { systemClock } from "../../src/io/clock.ts";

const FIXTURE = new URL("../../src/identity/agent/crash-fixture.ts", import.meta.url).pathname;
const UID = `unix:uid:${process.getuid?.()}`;
const ROUNDS = 5;

/** What one life of the agent said. */
interface Life {
  readonly held: string[][];
  readonly said: string[];
  kill(): Promise<void>;
}

function live(dir: string, address: string): Life {
  const child = spawn(process.execPath, [FIXTURE, dir, address], { stdio: ["ignore", "pipe", "inherit"] });
  const held: string[][] = [];
  const said: string[] = [];
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => {
    text += chunk;
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    for (const line of lines.map((one) => JSON.parse(one) as { held?: string[]; message?: string })) {
      if (line.held !== undefined) {
        held.push(line.held);
      } else {
        said.push(line.message ?? "");
      }
    }
  });
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  return {
    held,
    said,
    kill() {
      child.kill("SIGKILL");
      return closed;
    },
  };
}

test("killed at any moment, the agent comes back with what it held, whole, and with nothing that it knew to be withdrawn", async (t) => {
  const folder = testFolder();
  const server = new FakeServer(systemClock);
  const lives: Life[] = [];
  t.after(async () => {
    await Promise.all(lives.map((life) => life.kill()));
    await server.close();
    folder.remove();
  });
  await server.listen();
  writeFileSync(join(folder.dir, "bundle.pem"), server.bundlePem);
  const entry = (id: string) => ({ id, spiffeId: `spiffe://example.com/${id}`, selectors: [UID] });
  server.setEntries(entry("stays"));
  const kept = join(folder.dir, "data", "identities", "identities");
  let before: readonly string[] | null = null;
  let restored = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const life = live(folder.dir, server.address);
    lives.push(life);
    await until(() => life.held.length > 0, "its first word");
    const first = life.held[0] as string[];
    if (before !== null) {
      const more = first.filter((id) => !(before as string[]).includes(id));
      assert.deepEqual(more, [], `round ${round}: it knew that these are gone`);
      assert.ok(!life.said.some((message) => /discarded/.test(message)), life.said.join("\n"));
      restored += first.includes("stays") ? 1 : 0;
      await server.listen();
    }
    await until(() => life.held.at(-1)?.includes("stays") === true, "the entry that stays");
    await until(() => existsSync(kept), "something is kept");
    // Some entries come and go, and the end comes in the midst of it: after as many changes as this round has.
    const seen = life.held.length + round * 3;
    for (let change = 0; life.held.length <= seen; change++) {
      const coming = [1, 2, 3]
        .filter((bit) => ((change + round) >> (bit - 1)) % 2 === 1)
        .map((bit) => entry(`e${bit}`));
      server.setEntries(entry("stays"), ...coming);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await life.kill();
    before = life.held.at(-1) as string[];
    await server.close();
    server.setEntries(entry("stays"));
  }
  t.diagnostic(`${restored} of ${ROUNDS - 1} lives began with what the one before had kept`);
});
