import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { without } from "../../test/peers.ts";
import { originalDestination } from "./net-original-destination.ts";

const TABLE = `table inet everyhop {
  chain output {
    type nat hook output priority -100; policy accept;
    ip daddr 198.51.100.7 meta l4proto tcp redirect to :15001
    ip6 daddr 2001:db8::77 meta l4proto tcp redirect to :15001
  }
}
`;

/** In a network namespace of its own: redirects by the kernel, and says what was seen of each connection. */
async function inNamespace(): Promise<void> {
  const run = (command: string, ...args: string[]) =>
    execFileSync(command, args, { stdio: ["ignore", "ignore", "pipe"] });
  run("ip", "link", "set", "lo", "up");
  run("ip", "route", "add", "198.51.100.0/24", "dev", "lo");
  run("ip", "-6", "route", "add", "2001:db8::/32", "dev", "lo");
  execFileSync("nft", ["-f", "-"], { input: TABLE });
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(15_001, "::", resolve));
  for (const [host, port] of [
    ["198.51.100.7", 443],
    ["2001:db8::77", 8443],
    ["127.0.0.1", 15_001],
  ] as const) {
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const client = connect(port, host);
    const socket = await accepted;
    console.log(JSON.stringify(originalDestination(socket)));
    socket.destroy();
    client.destroy();
  }
  server.close();
}

if (process.argv.includes("--in-namespace")) {
  await inNamespace();
} else {
  test("a redirected connection says where it wanted to go", { skip: without("netns") }, () => {
    const { stdout, stderr } = spawnSync(
      "unshare",
      ["--net", process.execPath, import.meta.filename, "--in-namespace"],
      {
        encoding: "utf8",
      },
    );
    assert.deepEqual(
      stdout.trim().split("\n"),
      [
        '{"host":"198.51.100.7","port":443}',
        '{"host":"2001:db8:0:0:0:0:0:77","port":8443}',
        // Not redirected, but a NAT table is loaded: our own listener's address, which the caller has to refuse.
        '{"host":"127.0.0.1","port":15001}',
      ],
      stderr,
    );
  });
}
