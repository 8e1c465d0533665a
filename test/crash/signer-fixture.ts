/** The signer's process, which kills itself at a named point. Arguments: the point, and which time it comes by there. */
import { Socket } from "node:net";
import { openVault } from "../../src/identity/signer/open-vault.ts";
import { serveSigner } from "../../src/identity/signer/serve.ts";
import { randomOctets } from "../../src/io/random.ts";

const [, , point = "", nth = "0"] = process.argv;
let left = Number(nth);
const socket = new Socket({ fd: 3, readable: true, writable: true });
await serveSigner(socket, {
  now: Date.now,
  random: randomOctets,
  openVault,
  atPoint: (name) => {
    if (name === point && --left === 0) {
      process.kill(process.pid, "SIGKILL");
    }
  },
});
process.exit();
