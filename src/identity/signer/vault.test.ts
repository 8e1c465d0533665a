import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { skipWithout } from "../../../test/peers.ts";
import { publicKeyFromSpki, verifySignature } from "../../core/x509/algorithm.ts";
import { testCa } from "../../core/x509/fixture.ts";
import { diskKeyStore, memoryKeyStore } from "../../io/keys.ts";
import { testToken } from "../../io/softhsm-fixture.ts";
import { KEY_TYPES } from "../intent/key-type.ts";
import { x509AlgorithmOf } from "./key-types.ts";
import { tokenVault } from "./token-vault.ts";
import { fileVault, type Vault } from "./vault.ts";

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-vault-"));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

/** What every vault does; `open` opens the same again. */
async function contract(t: TestContext, open: () => Promise<Vault>): Promise<void> {
  const first = await open();
  const made = [];
  for (const type of KEY_TYPES) {
    made.push(await first.create("x509", type));
  }
  made.push(await first.create("jwt", "ec-p256"));
  const [ca] = made;
  const chain = [testCa("a").der, testCa("b").der];
  await first.adopt(ca?.id ?? "", chain);
  await first.close();
  const second = await open();
  t.after(() => second.close());
  const found = await second.load();
  const names = (keys: readonly { use: string; id: string }[]) => keys.map(({ use, id }) => `${use}-${id}`).sort();
  assert.deepEqual(names(found), names(made));
  for (const { id, key, chain: kept } of found) {
    const bytes = Buffer.from(`for ${id}`);
    const algorithm = x509AlgorithmOf(key.type);
    assert.ok(verifySignature(algorithm, publicKeyFromSpki(key.spki), bytes, key.sign(bytes)), key.type);
    assert.deepEqual(
      kept.map((der) => Buffer.from(der)),
      id === ca?.id ? chain.map((der) => Buffer.from(der)) : [],
    );
  }
  await second.discard("x509", ca?.id ?? "");
  await second.discard("x509", "00");
  assert.deepEqual(names(await second.load()), names(made.slice(1)));
}

test("keys on disk", async (t) => {
  const dir = folder(t);
  await contract(t, async () => fileVault(await diskKeyStore(dir), true));
});

test("keys in memory", async (t) => {
  const store = memoryKeyStore();
  await contract(t, async () => fileVault(store, false));
});

test("keys in a token", async (t) => {
  if (skipWithout(t, "softhsm")) {
    return;
  }
  const token = testToken(t);
  const certificates = await diskKeyStore(folder(t));
  const place = { kind: "pkcs11", ...token } as const;
  const open = (change: object = {}, trustDomain = "example.com") =>
    tokenVault({ ...place, ...change }, trustDomain, certificates);
  await t.test("as elsewhere", (inner) => contract(inner, () => open()));
  await t.test("of another trust domain are not ours", async () => {
    const other = await open({}, "other.test");
    assert.deepEqual(await other.load(), []);
    await other.close();
  });
  await t.test("a session that is lost is said, and nothing is signed", async () => {
    const vault = await open();
    const { key } = await vault.create("x509", "ec-p256");
    await vault.close();
    assert.throws(() => key.sign(Buffer.of(1)), { code: "storage-failed", message: /session was lost/ });
  });
  const wrong = join(folder(t), "pin");
  writeFileSync(wrong, "999999", { mode: 0o600 });
  const open644 = join(folder(t), "pin");
  writeFileSync(open644, "123456", { mode: 0o644 });
  const faults: readonly (readonly [string, object, string, RegExp])[] = [
    ["a wrong PIN", { pinFile: wrong }, "permission-denied", /the PIN is wrong/],
    ["a PIN that others can read", { pinFile: open644 }, "permission-denied", /can be reached by others/],
    ["no PIN file", { pinFile: `${wrong}.not` }, "file-missing", /is not there/],
    ["no such token", { tokenLabel: "nobody's" }, "file-missing", /no token has the label `nobody's`/],
    ["no such library", { module: "/nowhere/lib.so" }, "file-missing", /cannot be loaded/],
    ["a library that is none of PKCS#11", { module: "libc.so.6" }, "file-missing", /cannot be loaded/],
  ];
  for (const [name, change, code, message] of faults) {
    await t.test(name, () => assert.rejects(open(change), { code, message }));
  }
});

test("a stored key that is damaged is said by its name", async (t) => {
  const dir = folder(t);
  writeFileSync(join(dir, "x509-ab.pem"), "nonsense", { mode: 0o600 });
  const vault = fileVault(await diskKeyStore(dir), true);
  await assert.rejects(vault.load(), { code: "storage-failed", message: /`x509-ab\.pem` cannot be used/ });
});
