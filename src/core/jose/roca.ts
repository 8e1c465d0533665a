/**
 * Recognises RSA moduli of CVE-2017-15361 ("ROCA"), which can be factored: modulo small primes they are powers of 65537.
 * SPEC: Nemec et al., "The Return of Coppersmith's Attack", CCS 2017, §3.
 */
const PRIMES = [
  3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113,
  127, 131, 137, 139, 149, 151, 157, 163, 167,
];

const POWERS = PRIMES.map((prime) => {
  const powers = new Set<number>();
  for (let power = 1; !powers.has(power); power = (power * 65_537) % prime) {
    powers.add(power);
  }
  return powers;
});

export function isRocaModulus(modulus: Uint8Array): boolean {
  return PRIMES.every((prime, index) => POWERS[index]?.has(remainder(modulus, prime)));
}

function remainder(octets: Uint8Array, divisor: number): number {
  let rest = 0;
  for (const octet of octets) {
    rest = (rest * 256 + octet) % divisor;
  }
  return rest;
}
