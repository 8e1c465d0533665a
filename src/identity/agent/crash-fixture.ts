/** An agent in a process of its own that says of every change what it can hand out. Killed by crash.test.ts. */
import { writeSync } from "node:fs";
import { systemClock } from "../../io/clock.ts";
import { makeLog } from "../../io/log.ts";
import { startTestAgent } from "./fixture.ts";

const [, script = "", dir, address] = process.argv;
if (script.endsWith("crash-fixture.ts") && dir !== undefined && address !== undefined) {
  // Synchronous: what was written is in the pipe, also when the process is killed in the next moment.
  const say = (what: object) => writeSync(1, `${JSON.stringify(what)}\n`);
  const log = makeLog("agent", { write: (line) => void writeSync(1, line) });
  const server = { address, bundlePem: null, clock: systemClock };
  const agent = await startTestAgent(server, dir, { log, random: Math.random });
  const tell = () => say({ held: [...agent.cache.contents().svids.keys()].sort() });
  agent.cache.changed.watch(tell);
  tell();
}
