import assert from "node:assert/strict";
import { test } from "node:test";
import { scriptArgument } from "./script.ts";

test("the script is the first argument that is no option, of an option, or code", () => {
  const table: readonly (readonly [string, readonly string[], string | null])[] = [
    ["node", ["app.mjs"], "app.mjs"],
    ["node", ["--enable-source-maps", "--import", "./hook.mjs", "app.mjs", "--flag"], "app.mjs"],
    ["node", ["--import=./hook.mjs", "app.mjs"], "app.mjs"],
    ["node", ["-r", "hook", "app.mjs"], "app.mjs"],
    ["node", ["--", "app.mjs"], "app.mjs"],
    ["node", ["-e", "code", "app.mjs"], null],
    ["node", ["--print", "code"], null],
    ["node", ["--test", "a.test.mjs"], null],
    ["node", ["-"], null],
    ["node", [], null],
    ["node", [""], null],
    ["python3", ["app.py"], "app.py"],
    ["python3.11", ["-u", "-W", "ignore", "app.py"], "app.py"],
    ["python3", ["-m", "http.server"], null],
    ["python3", ["-Im", "http.server"], null],
    ["python3", ["-c", "code", "app.py"], null],
    ["bash", ["run.sh", "x"], "run.sh"],
    ["bash", ["-e", "-o", "pipefail", "run.sh"], "run.sh"],
    ["bash", ["-c", "run.sh"], null],
    ["bash", ["-lc", "run.sh"], null],
    ["sh", ["-s", "x"], null],
    ["ruby", ["-I", "lib", "app.rb"], "app.rb"],
    ["ruby", ["-e", "code"], null],
    ["perl", ["-w", "app.pl"], "app.pl"],
    ["perl", ["-we", "code"], null],
    ["java", ["-Xmx1g", "-cp", "lib/*", "-jar", "app.jar", "x"], "app.jar"],
    ["java", ["-cp", "lib/*", "Main"], "Main"],
    ["java", ["-m", "module/Main"], null],
    ["nginx", ["app.mjs"], null],
    ["xnode", ["app.mjs"], null],
  ];
  for (const [name, args, expected] of table) {
    assert.equal(scriptArgument(name, [name, ...args]), expected, `${name} ${args.join(" ")}`);
  }
});
