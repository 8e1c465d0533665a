import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseCgroups } from "../../../../io/cgroup.ts";
import type { Observation } from "../observe.ts";
import { parseProperties, systemdAttestor } from "./systemd.ts";
import { findUnit } from "./unit.ts";

const unitOf = (...lines: readonly string[]): string | null => findUnit(parseCgroups(lines.join("\n")))?.id ?? null;
const process = (cgroups: string) => ({ cgroups }) as Observation;
const NGINX = "0::/system.slice/nginx.service";
const SHOWN =
  "Id=nginx.service\nControlGroup=/system.slice/nginx.service\nFragmentPath=/usr/lib/systemd/system/nginx.service\n";

test("the unit is the outermost one of the control group", () => {
  const table: readonly (readonly [readonly string[], string | null])[] = [
    [[NGINX], "nginx.service"],
    [["0::/system.slice/system-postgresql.slice/postgresql@16-main.service"], "postgresql@16-main.service"],
    [["0::/user.slice/user-1000.slice/session-3.scope"], "session-3.scope"],
    [["0::/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service"], "user@1000.service"],
    [["0::/system.slice/web.service/nginx.service"], "web.service"],
    [[`0::/system.slice/docker-${"a".repeat(64)}.scope/system.slice/nginx.service`], `docker-${"a".repeat(64)}.scope`],
    [["0::/system.slice/_cpu.service"], "cpu.service"],
    [["0::/init.scope"], "init.scope"],
    [["4:memory:/other", "1:name=systemd:/system.slice/nginx.service", "0::/"], "nginx.service"],
    [["0::/"], null],
    [["0::/docker/abc"], null],
    [["0::/system.slice"], null],
    [["0::/system.slice/no unit.service"], null],
    [["4:memory:/system.slice/nginx.service"], null],
    [[""], null],
  ];
  for (const [lines, expected] of table) {
    assert.equal(unitOf(...lines), expected, lines.join());
  }
});

test("a unit's process has its id, and its file where an entry asks for it", async () => {
  const asked: string[] = [];
  const attestor = systemdAttestor({
    seesRoot: () => true,
    show: async (unit) => {
      asked.push(unit);
      return SHOWN;
    },
  });
  assert.deepEqual(await attestor.attest(process(NGINX), () => false), ["systemd:id:nginx.service"]);
  assert.deepEqual(asked, []);
  assert.deepEqual(await attestor.attest(process(NGINX), () => true), [
    "systemd:id:nginx.service",
    "systemd:fragment_path:/usr/lib/systemd/system/nginx.service",
  ]);
  assert.deepEqual(asked, ["nginx.service"]);
  assert.deepEqual(await attestor.attest(process("0::/"), () => true), []);
});

test("what systemd does not confirm is not said", async () => {
  const with_ = (text: string) => systemdAttestor({ seesRoot: () => true, show: async () => text });
  for (const text of [
    "",
    SHOWN.replace("ControlGroup=/system.slice/", "ControlGroup=/other.slice/"),
    SHOWN.replace("Id=nginx", "Id=apache"),
  ]) {
    await assert.rejects(
      with_(text).attest(process(NGINX), () => true),
      /does not know/,
      text,
    );
  }
  const generated = with_(SHOWN.replace(/FragmentPath=.*/, "FragmentPath="));
  assert.deepEqual(await generated.attest(process(NGINX), () => true), ["systemd:id:nginx.service"]);
  const contained = systemdAttestor({ seesRoot: () => false, show: async () => SHOWN });
  await assert.rejects(
    contained.attest(process(NGINX), () => true),
    /does not see the machine's control groups/,
  );
});

test("any output has a reading", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      for (const [name, value] of parseProperties(text)) {
        assert.ok(name !== "" && !name.includes("=") && !value.includes("\n"));
      }
      findUnit(parseCgroups(`0::/${text}`));
    }),
  );
});
