// Every byte that reaches this service, kept, so that a test can show that a denied attempt leaves none.
import { openSync, writeSync } from "node:fs";
import { join } from "node:path";

const MAX_BYTES = 32 << 20;
const file = process.env.RECORD_FILE ?? join(process.env.EVERYHOP_STATE_DIR ?? ".", "received.bin");
const fd = openSync(file, "a", 0o600);
let recorded = 0;

export function record(bytes) {
  if (recorded < MAX_BYTES) {
    recorded += writeSync(fd, bytes);
  }
}

/** Records what arrives on a connection, beside whoever reads it. */
export function recordSocket(socket) {
  socket.on("data", record);
}
