import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";

const MODULE = new URL("./own-process.ts", import.meta.url).href;
/** What the launcher starts: says its pid, and would run for an hour. */
const CHILD = `
  const { dieWithLauncher } = await import(${JSON.stringify(MODULE)});
  dieWithLauncher(process.env.EVERYHOP_LAUNCHER);
  console.log(process.pid);
  setInterval(() => {}, 3_600_000);
`;
const LAUNCHER = `
  const { spawn } = require("node:child_process");
  const env = { ...process.env, EVERYHOP_LAUNCHER: String(process.pid) };
  spawn(process.execPath, ["--input-type=module", "-e", ${JSON.stringify(CHILD)}], { stdio: "inherit", env });
  setInterval(() => {}, 3_600_000);
`;

test("who kills the launcher kills what it waits for", {
  skip: process.platform !== "linux" && "Linux alone",
}, async () => {
  const launcher = spawn(process.execPath, ["-e", LAUNCHER], { stdio: ["ignore", "pipe", "inherit"] });
  const said = await new Promise<string>((resolve) => launcher.stdout.once("data", (chunk) => resolve(String(chunk))));
  assert.ok(Number(said) > 0);
  // The pipe is open as long as anybody holds its other end: both have to go.
  const ended = new Promise((resolve) => launcher.once("close", resolve));
  launcher.kill("SIGKILL");
  await ended;
});
