/** y² = x³ - 3x + b over a prime field. SPEC: SEC 2 §2.4.2, §2.5.1. */
interface Curve {
  readonly octets: number;
  readonly p: bigint;
  readonly b: bigint;
}

const CURVES: Readonly<Record<string, Curve>> = {
  "P-256": {
    octets: 32,
    p: 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
  },
  "P-384": {
    octets: 48,
    p: 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffffn,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn,
  },
};

/**
 * Whether `octets` are an uncompressed point of the curve; null where the curve is not one of the two here. These curves have
 * cofactor 1, so a point on the curve is a public key. HOT: 2 µs, where having OpenSSL import the key takes 10 or more.
 */
export function isPointOn(curve: string, octets: Uint8Array): boolean | null {
  const parameters = Object.hasOwn(CURVES, curve) ? CURVES[curve] : undefined;
  if (parameters === undefined) {
    return null;
  }
  const { octets: size, p, b } = parameters;
  if (octets.length !== 1 + 2 * size || octets[0] !== 4) {
    return false;
  }
  const hex = Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("hex");
  const x = BigInt(`0x${hex.slice(2, 2 + 2 * size)}`);
  const y = BigInt(`0x${hex.slice(2 + 2 * size)}`);
  return x < p && y < p && (y * y - (x * x * x - 3n * x + b)) % p === 0n;
}
