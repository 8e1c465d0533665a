/** http_challenge, the node's half: a small server that shows the nonce until the server has seen it. */
import { createServer, type Server } from "node:http";
import { hostname } from "node:os";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { readPayload, textField, writePayload } from "../payload.ts";
import type { MakeProof } from "../proof.ts";

export interface HttpChallengeProof {
  /** The DNS name the server dials; default the host's. */
  readonly hostname?: string;
  readonly agentName?: string;
  /** Where it listens; default 0, a free one. */
  readonly port?: number;
  /** What the server is told, where a forwarder stands before the host; default `port`. */
  readonly advertisedPort?: number;
}

/** Listens anew for each attempt, until the proof is closed. Errors: `port-in-use`. */
export function httpChallengeProof(options: HttpChallengeProof): MakeProof {
  const { hostname: host = hostname(), agentName = "default", port = 0, advertisedPort } = options;
  return async () => {
    let nonce: string | null = null;
    const path = `/.well-known/spiffe/nodeattestor/http_challenge/${agentName}/challenge`;
    const server = createServer({ requestTimeout: 10_000, headersTimeout: 10_000 }, (request, response) => {
      const known = nonce !== null && request.url === path && request.method === "GET";
      response.writeHead(known ? 200 : 404, { "content-type": "text/plain", connection: "close" });
      response.end(known ? `${nonce}\n` : "");
    });
    server.maxConnections = 16;
    const bound = await listen(server, port);
    return {
      type: "http_challenge",
      payload: writePayload({ hostname: host, agentname: agentName, port: advertisedPort ?? bound }),
      async answer(challenge) {
        nonce = textField(readPayload(challenge, "challenge"), "nonce");
        return new TextEncoder().encode("{}");
      },
      close: () =>
        new Promise((resolve) => {
          server.close(() => resolve());
          server.closeAllConnections();
        }),
    };
  };
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const message = `cannot listen on port ${port} to prove the node: ${cause.message}`;
      reject(new EveryhopError("port-in-use", message, { cause }));
    });
    server.listen(port, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}
