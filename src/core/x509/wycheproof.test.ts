import assert from "node:assert/strict";
import { test } from "node:test";
import { readVectors, withoutConformance } from "../../../test/conformance.ts";
import { publicKeyFromSpki, verifySignature } from "./algorithm.ts";

interface Vectors {
  readonly testGroups: readonly {
    readonly publicKeyDer: string;
    readonly tests: readonly {
      readonly tcId: number;
      readonly comment: string;
      readonly msg: string;
      readonly sig: string;
      readonly result: "valid" | "acceptable" | "invalid";
    }[];
  }[];
}

test("Wycheproof ECDSA P-256 with SHA-256", { skip: withoutConformance() }, () => {
  const { testGroups } = readVectors("wycheproof/ecdsa_secp256r1_sha256_test.json") as Vectors;
  let checked = 0;
  for (const group of testGroups) {
    const key = publicKeyFromSpki(Buffer.from(group.publicKeyDer, "hex"));
    for (const { tcId, comment, msg, sig, result } of group.tests) {
      const answer = verifySignature("ecdsa-sha256", key, Buffer.from(msg, "hex"), Buffer.from(sig, "hex"));
      assert.equal(answer, result === "valid", `${tcId}: ${comment}`);
      checked++;
    }
  }
  assert.ok(checked > 100, `${checked}`);
});
