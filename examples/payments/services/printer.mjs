// Prints things. It is of low value, so nobody looked after it, and an attacker has code running inside it: the back door
// below stands for that. Only printer's own user can use it (a socket in its own folder).
import { chmodSync, openSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { serve } from "./http.mjs";

serve({ "POST /print": async (_request, job) => [202, { printing: job }] });

const folder = process.env.EVERYHOP_STATE_DIR ?? ".";
// Through a descriptor, because a socket's path may be at most 107 bytes long.
const socketPath = `/proc/self/fd/${openSync(folder, "r")}/backdoor.sock`;
rmSync(join(folder, "backdoor.sock"), { force: true });

/** JSON in, `{module, input}`: runs the module's `run(input, report)` in this process; lines of JSON out. */
const backdoor = createServer({ allowHalfOpen: true }, (socket) => {
  let text = "";
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.on("end", () => obey(text, (line) => socket.write(`${JSON.stringify(line)}\n`)).finally(() => socket.end()));
});

async function obey(text, say) {
  try {
    const { module, input } = JSON.parse(text);
    const { run } = await import(pathToFileURL(module));
    await run(input, say);
  } catch (error) {
    say({ error: error.stack });
  }
}

backdoor.listen(socketPath, () => chmodSync(socketPath, 0o600));
