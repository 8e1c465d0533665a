import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import { parseSpiffeId } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { HOUR, testCa, testKey, testLeaf } from "../core/x509/fixture.ts";
import { contextOptions } from "./tls.ts";

const now = Date.now();
const valid = { notBeforeMs: now - HOUR, notAfterMs: now + HOUR };

function svid(): X509Svid {
  const own = testKey();
  const id = parseSpiffeId("spiffe://example.com/web");
  const chain = [testLeaf(testCa("root", valid), id, valid, own)];
  const keyDer = own.key.export({ format: "der", type: "pkcs8" });
  return { id, chain, keyDer, serial: "", notBefore: valid.notBeforeMs, notAfter: valid.notAfterMs, hint: "" };
}

test("no session is resumed, before and after the server's certificate changes", async (t) => {
  const server = createServer({ ...contextOptions(svid()), requestCert: true, rejectUnauthorized: false }, (socket) => {
    socket.on("error", () => {});
    socket.write("x");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const address = server.address();
  const port = typeof address === "object" ? (address?.port ?? 0) : 0;
  const client = contextOptions(svid());
  /** Connects, offering `session`; whether it was taken, and what the server offers for the next time. */
  const visit = (session: Buffer | undefined) =>
    new Promise<{ resumed: boolean; session: Buffer | undefined }>((resolve, reject) => {
      const offered = session === undefined ? {} : { session };
      const socket: TLSSocket = connect({ ...client, ...offered, host: "127.0.0.1", port, rejectUnauthorized: false });
      let data = false;
      let next: Buffer | undefined;
      const both = (): void => {
        const resumed = socket.isSessionReused();
        if (data && (resumed || next !== undefined)) {
          socket.destroy();
          resolve({ resumed, session: next });
        }
      };
      socket.on("error", reject);
      socket.once("data", () => {
        data = true;
        both();
      });
      // Also without tickets the server names the session; only that it will not know it again.
      socket.once("session", (one: Buffer) => {
        next = one;
        both();
      });
    });
  const first = await visit(undefined);
  const second = await visit(first.session);
  server.setSecureContext(contextOptions(svid()));
  const third = await visit(second.session);
  const fourth = await visit(third.session);
  assert.deepEqual(
    [first, second, third, fourth].map(({ resumed }) => resumed),
    [false, false, false, false],
  );
});
