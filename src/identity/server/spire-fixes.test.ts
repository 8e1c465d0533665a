/** What SPIRE had to mend, on our server; each test names the fix. The others stand beside their subject. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { connect, type TLSSocket } from "node:tls";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { pem, pemChain } from "../../io/tls.ts";
import { id, testServer, wire } from "./fixture.ts";

function dial(t: TestContext, port: number, options: object): Promise<{ socket: TLSSocket; session: Buffer | null }> {
  return new Promise((resolve, reject) => {
    let session: Buffer | null = null;
    const socket = connect({ host: "127.0.0.1", port, ALPNProtocols: ["h2"], rejectUnauthorized: false, ...options });
    t.after(() => socket.destroy());
    socket.once("error", reject);
    socket.on("session", (ticket) => {
      session = ticket;
    });
    // The server's first frame comes after its tickets would have.
    socket.once("data", () => resolve({ socket, session }));
    socket.once("secureConnect", () => socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1"));
  });
}

test("1.14.3, TLS resumption: a session is never taken up again, with what was proven in it", async (t) => {
  const server = await testServer(t);
  const agent = await server.agent();
  const identity = { cert: pemChain(agent.chain), key: pem("PRIVATE KEY", agent.keyDer) };
  const first = await dial(t, Number(server.address.split(":")[1]), identity);
  const session = first.session ?? first.socket.getSession();
  await server.local(Agent).banAgent({ id: wire(agent.id) });
  const second = await dial(t, Number(server.address.split(":")[1]), { ...identity, session });
  assert.equal(second.socket.isSessionReused(), false);
});

test("page size: what is asked for is no promise of memory", async (t) => {
  const server = await testServer(t);
  await server.entry(id("/web"), id("/spire/agent/x"));
  for (const pageSize of [-1, 1, 2 ** 31 - 1]) {
    assert.equal((await server.local(Entry).listEntries({ pageSize })).entries.length, 1, String(pageSize));
    assert.deepEqual((await server.local(Agent).listAgents({ pageSize })).agents, [], String(pageSize));
  }
});
