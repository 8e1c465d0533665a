import assert from "node:assert/strict";
import { test } from "node:test";
import { checkLockfile, checkWords } from "./repository.ts";

test("paths of one machine and hosts of registries are found with their line", () => {
  assert.deepEqual(checkWords("a.md", "fine\nsee /wor" + "k/x"), [`a.md:2: \`/wor${"k/"}\` is a path of one machine`]);
  assert.equal(checkWords("a.md", "https://registry.npm" + "js.org/yaml").length, 1);
  assert.deepEqual(checkWords("a.md", "workspace, network/policy, the registry"), []);
});

test("the lockfile pins by hash and names no host", () => {
  const lock = (entry: object): string => JSON.stringify({ packages: { "": {}, "node_modules/x": entry } });
  assert.deepEqual(checkLockfile(lock({ version: "1.0.0", integrity: "sha512-x" })), []);
  assert.equal(checkLockfile(lock({ version: "1.0.0", integrity: "sha512-x", resolved: "https://h/x.tgz" })).length, 1);
  assert.equal(checkLockfile(lock({ version: "1.0.0" })).length, 1);
  const needy = { version: "1.0.0", integrity: "sha512-x", optionalDependencies: { y: "1.0.0" } };
  assert.match(checkLockfile(lock(needy))[0] as string, /`y`, which `node_modules\/x` asks for, is missing/);
  const packages = { "": {}, "node_modules/x": needy, "node_modules/y": { integrity: "sha512-y" } };
  assert.deepEqual(checkLockfile(JSON.stringify({ packages })), []);
});
