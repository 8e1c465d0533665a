/** Two HAProxy processes of one thread each: the first speaks mTLS to the second, which lets exactly one SPIFFE ID through. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { CLIENT_ID, endProcess, freePort, type Pair, startProcess, untilListening } from "./pair.ts";

const COMMON = `
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
  maxconn 4000
`;

/** `alpn` `h2` carries the requests of all connections as streams of few sessions, `http/1.1` one at a time. */
export async function startHaproxyPair(
  binary: string,
  folder: string,
  backend: string,
  alpn: "h2" | "http/1.1",
): Promise<Pair> {
  const [outbound, inbound] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const tag = alpn === "h2" ? "h2" : "h1";
  // HAProxy has no fetch of a URI name: the name's DER, tag and length before it, is looked for in the certificate.
  const name = Buffer.concat([Buffer.from([0x86, CLIENT_ID.length]), Buffer.from(CLIENT_ID)]).toString("hex");
  const server = `global
  nbthread 1
  maxconn 8000
${COMMON}
frontend in
  bind ${inbound} ssl crt ${folder}/server.pem ca-file ${folder}/ca.pem verify required ssl-min-ver TLSv1.3 alpn ${alpn}
  acl allowed ssl_c_der,hex -m sub ${name.toUpperCase()}
  http-request deny deny_status 403 unless allowed
  default_backend app
backend app
  server app ${backend}
`;
  const client = `global
  nbthread 1
  maxconn 8000
${COMMON}
frontend out
  bind ${outbound}
  # HTTP/2 has no reason phrase, and h2load takes an answer without one for a failure.
  http-response set-status 200 reason OK if { status 200 }
  default_backend peer
backend peer
  server peer ${inbound} ssl crt ${folder}/client.pem ca-file ${folder}/ca.pem verify required ssl-min-ver TLSv1.3 alpn ${alpn}
`;
  writeFileSync(join(folder, `haproxy-server-${tag}.cfg`), server);
  writeFileSync(join(folder, `haproxy-client-${tag}.cfg`), client);
  const second = startProcess(binary, ["-db", "-f", join(folder, `haproxy-server-${tag}.cfg`)]);
  await untilListening(inbound, second);
  const first = startProcess(binary, ["-db", "-f", join(folder, `haproxy-client-${tag}.cfg`)]);
  await untilListening(outbound, first);
  return {
    name: `HAProxy pair, ${tag} between`,
    address: outbound,
    pids: [first.pid as number, second.pid as number],
    stop: async () => void (await Promise.all([endProcess(first), endProcess(second)])),
  };
}
