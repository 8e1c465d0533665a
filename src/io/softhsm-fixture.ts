/** A token of SoftHSM's in a folder of the test's. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { peer } from "../../test/peers.ts";

export interface TestToken {
  readonly module: string;
  readonly tokenLabel: string;
  readonly pinFile: string;
  /** The folder of the token, and of nothing else. */
  readonly dir: string;
}

/** Makes one, and lets this process (and what it starts) find it. The library reads its configuration once a process. */
export function testToken(t: TestContext, pin = "123456"): TestToken {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-hsm-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const config = join(dir, "softhsm2.conf");
  writeFileSync(config, `directories.tokendir = ${dir}\nlog.level = ERROR\n`);
  process.env.SOFTHSM2_CONF = config;
  const tokenLabel = "everyhop test";
  const args = ["--init-token", "--free", "--label", tokenLabel, "--pin", pin, "--so-pin", "654321"];
  execFileSync("softhsm2-util", args, { stdio: "pipe" });
  const pinFile = join(dir, "pin");
  writeFileSync(pinFile, `${pin}\n`, { mode: 0o600 });
  return { module: peer("softhsm") ?? "", tokenLabel, pinFile, dir };
}
