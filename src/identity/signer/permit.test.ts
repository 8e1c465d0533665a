import assert from "node:assert/strict";
import { generateKeyPairSync, sign, verify } from "node:crypto";
import { test } from "node:test";
import { permitFor, SigningKey, SigningPermit } from "./permit.ts";

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const key = new SigningKey({
  type: "ec-p256",
  spki: publicKey.export({ format: "der", type: "spki" }),
  sign: (bytes) => sign("sha256", bytes, privateKey),
});

test("a permit signs once, and the very bytes that were linted", () => {
  const bytes = Buffer.from("as linted");
  const permit = permitFor(bytes, "x", () => []);
  bytes.write("changed  ");
  const { bytes: signed, signature } = key.sign(permit);
  assert.equal(Buffer.from(signed).toString(), "as linted");
  assert.ok(verify("sha256", signed, publicKey, signature));
  assert.throws(() => key.sign(permit), /used twice/);
});

test("there is no other way to a permit, and none for bytes with a fault", () => {
  assert.throws(() => new SigningPermit(Symbol("made by permitFor"), Buffer.from("x")), /made by `permitFor` alone/);
  assert.throws(() => permitFor(Buffer.of(1), "x", () => ["too long"]), /refused to sign for `x`: too long/);
});
