import assert from "node:assert/strict";
import { test } from "node:test";
import { readVectors, withoutConformance } from "../../../test/conformance.ts";
import { ALGORITHMS, type JwsAlgorithm } from "./algorithm.ts";
import { parseJwks } from "./jwk.ts";
import { verifyJws } from "./jws.ts";

interface Group {
  readonly comment: string;
  readonly private: Readonly<Record<string, unknown>>;
  readonly public?: Readonly<Record<string, unknown>>;
  readonly tests: readonly {
    readonly tcId: number;
    readonly comment: string;
    readonly result: "valid" | "invalid";
    readonly jws?: unknown;
  }[];
}

/** Vectors called invalid that are, octet for octet, vector 357, which is called valid: their padding was lost on the way. */
const SAME_AS_357: ReadonlySet<number> = new Set([367, 370]);

/** Vectors called valid that are refused here, by tcId, with the reason; without the key's `alg` those of a wrong one verify. */
const REFUSED: ReadonlyMap<number, "alg-of-key" | "not-base64url"> = new Map([
  // RFC 7517 §4.4: a key's `alg` is what it is for. These tokens use PS384 with a PS256 key, and ES512 with one of "ES521".
  [346, "alg-of-key"],
  [347, "alg-of-key"],
  [350, "alg-of-key"],
  [351, "alg-of-key"],
  // RFC 7515 §2: these have a question mark in the base64url.
  [372, "not-base64url"],
  [373, "not-base64url"],
]);

const everything = Object.keys(ALGORITHMS) as JwsAlgorithm[];

for (const file of ["json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"]) {
  test(`Wycheproof ${file}`, { skip: withoutConformance() }, () => {
    const { testGroups } = readVectors(`wycheproof/${file}`) as { testGroups: readonly Group[] };
    let checked = 0;
    for (const group of testGroups) {
      const source = group.public ?? group.private;
      const keys = parseJwks(Array.isArray(source.keys) ? source : { keys: [source] }).keys;
      for (const { tcId, comment, result, jws } of group.tests) {
        if (jws === undefined) {
          continue;
        }
        const refused = file === "json_web_signature_test.json" ? REFUSED.get(tcId) : undefined;
        const token = typeof jws === "string" ? jws : JSON.stringify(jws);
        const answer = verifyJws(token, keys, { algorithms: everything });
        const misnamed = file === "json_web_signature_test.json" && SAME_AS_357.has(tcId);
        const valid = misnamed || (result === "valid" && refused === undefined);
        assert.equal(answer.ok, valid, `${tcId} ${group.comment}: ${comment}: ${JSON.stringify(answer)}`);
        if (refused === "alg-of-key") {
          const unbound = parseJwks({ keys: [{ ...source, alg: undefined }] }).keys;
          assert.ok(verifyJws(token, unbound, { algorithms: everything }).ok, `${tcId} without the key's alg`);
        }
        checked++;
      }
    }
    assert.ok(checked >= 20, `only ${checked} vectors`);
  });
}
