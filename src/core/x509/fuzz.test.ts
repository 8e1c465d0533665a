import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EveryhopError } from "../base/errors.ts";
import { parseCertificate } from "./certificate.ts";
import { verifyCsr } from "./csr.ts";
import { splitDer } from "./der.ts";
import { testCa, testCsr, testLeaf } from "./fixture.ts";
import { parsePem } from "./pem.ts";

/** A parser either answers or throws its typed error, whatever it is fed. */
function answersOrRefuses(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    assert.ok(error instanceof EveryhopError && error.code === "invalid-argument", String(error));
  }
}

const mutation = fc.array(
  fc.record({
    at: fc.nat(),
    kind: fc.constantFrom("flip", "set", "cut", "insert", "double"),
    value: fc.nat(255),
  }),
  { minLength: 1, maxLength: 6 },
);
type Mutations = typeof mutation extends fc.Arbitrary<infer T> ? T : never;

function mutate(bytes: Uint8Array, mutations: Mutations): Uint8Array {
  let out = Buffer.from(bytes);
  for (const { at, kind, value } of mutations) {
    const index = out.length === 0 ? 0 : at % out.length;
    const [head, tail] = [out.subarray(0, index), out.subarray(index)];
    const changed = { flip: (tail[0] ?? 0) ^ (1 << (value & 7)), set: value }[kind as "flip" | "set"];
    if (changed !== undefined) {
      out = Buffer.concat([head, Buffer.of(changed), tail.subarray(1)]);
    } else if (kind === "cut") {
      out = Buffer.concat([head, tail.subarray(value)]);
    } else {
      out = Buffer.concat([head, kind === "insert" ? Buffer.of(value) : tail.subarray(0, value), tail]);
    }
  }
  return out;
}

const ca = testCa("fuzz");
const leaf = testLeaf(ca, "spiffe://example.com/a", { dnsNames: ["a.example.com"] });
const csr = testCsr();

test("mutated certificates", () => {
  fc.assert(
    fc.property(mutation, fc.constantFrom(ca.der, leaf), (mutations, der) => {
      answersOrRefuses(() => parseCertificate(mutate(der, mutations)));
    }),
    { numRuns: 3000 },
  );
});

test("mutated certification requests: no changed octet is believed", () => {
  fc.assert(
    fc.property(mutation, (mutations) => {
      const changed = mutate(csr, mutations);
      answersOrRefuses(() => {
        verifyCsr(changed);
        assert.deepEqual(changed, Buffer.from(csr));
      });
    }),
    { numRuns: 1500 },
  );
});

test("random octets", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
      answersOrRefuses(() => parseCertificate(octets));
      answersOrRefuses(() => verifyCsr(octets));
      answersOrRefuses(() => splitDer(octets));
      answersOrRefuses(() => parsePem(Buffer.from(octets).toString("latin1")));
    }),
    { numRuns: 1000 },
  );
});
