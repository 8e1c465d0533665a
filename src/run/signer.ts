/**
 * The signer's process: holds the CA's and the JWT keys, and signs for the one server that started it, over the socket it
 * inherited as descriptor 3. It opens no other socket, and ends when that one does.
 */
import { Socket } from "node:net";
import { EveryhopError, toEveryhopError } from "../core/base/errors.ts";
import { openVault } from "../identity/signer/open-vault.ts";
import { serveSigner } from "../identity/signer/serve.ts";
import { makeLog } from "../io/log.ts";
import { refuseInspection } from "../io/own-process.ts";
import { randomOctets } from "../io/random.ts";

const SOCKET_FD = 3;

async function main(): Promise<void> {
  const log = makeLog("signer", { level: "info" });
  process.umask(0o077);
  // A terminal's Ctrl-C and a supervisor's SIGTERM reach the server too: the signer ends with it, not before.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {});
  }
  refuseInspection();
  const socket = new Socket({ fd: SOCKET_FD, readable: true, writable: true });
  const fault = await serveSigner(socket, { now: Date.now, random: randomOctets, openVault });
  if (fault !== null) {
    const { code, message } = toEveryhopError(fault);
    log.error("the signer ends: it signs nothing after this", { code, message });
    process.exitCode = fault instanceof EveryhopError ? fault.exitCode : 70;
  }
}

await main();
// Nothing may hold it: with its socket gone nobody is there to sign for.
process.exit();
