import { randomFillSync } from "node:crypto";

const POOL_BYTES = 4_096;

let pool = Buffer.alloc(0);

/** `count` random octets, drawn from the system many at a time: a call for 16 costs more than 16 octets do. HOT: per issuance. */
export function randomOctets(count: number): Buffer {
  if (pool.length < count) {
    // A new one each time: what was handed out is its holder's.
    pool = randomFillSync(Buffer.allocUnsafeSlow(Math.max(POOL_BYTES, count)));
  }
  const octets = pool.subarray(0, count);
  pool = pool.subarray(count);
  return octets;
}
