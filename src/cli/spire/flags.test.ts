import assert from "node:assert/strict";
import { test } from "node:test";
import { type Flags, flag, Given, text, texts, UsageError } from "./flags.ts";

const FLAGS: Flags = { id: text("one"), selector: texts("many"), admin: flag("yes or no"), ttl: text("a number") };
const read = (...argv: readonly string[]) => new Given(FLAGS, argv);

test("Go's ways to write a flag", () => {
  for (const argv of [["-id", "a"], ["--id", "a"], ["-id=a"], ["--id=a"]]) {
    assert.equal(read(...argv).text("id"), "a", argv.join(" "));
  }
  assert.equal(read("-id=a=b").text("id"), "a=b");
  assert.equal(read("-id", "-1").text("id"), "-1", "what follows is the value, whatever it looks like");
  assert.deepEqual(read("-selector", "a:1", "-selector=b:2").texts("selector"), ["a:1", "b:2"]);
  assert.deepEqual(
    [read("-admin").flag("admin"), read("-admin=false").flag("admin"), read().flag("admin")],
    [true, false, false],
  );
  assert.deepEqual(read("-admin", "rest", "-id").rest, ["rest", "-id"], "the first word that is no flag ends them");
  assert.deepEqual(read("--", "-id").rest, ["-id"]);
  assert.equal(read("-ttl", "60").number("ttl"), 60);
  assert.deepEqual([read().text("id"), read().number("ttl"), read().has("id")], ["", 0, false]);
});

test("what is wrong is said as Go says it, with what was meant", () => {
  const wrong: [readonly string[], RegExp][] = [
    [["-ide", "x"], /flag provided but not defined: -ide; did you mean `-id`\?/],
    [["-id"], /flag needs an argument: -id/],
    [["-admin=maybe"], /invalid boolean value "maybe" for -admin/],
  ];
  for (const [argv, message] of wrong) {
    assert.throws(
      () => read(...argv),
      (error: unknown) => error instanceof UsageError && message.test(error.message),
    );
  }
  assert.throws(() => read("-ttl", "soon").number("ttl"), /invalid value "soon" for flag -ttl/);
});
