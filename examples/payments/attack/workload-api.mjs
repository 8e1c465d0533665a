// Asks the agent for identities: the SPIFFE Workload API, and the Broker API that is for sidecars only.
import { createRequire } from "node:module";
import { pem } from "./forge.mjs";

const { Client, credentials, Metadata } = createRequire(import.meta.url)("@grpc/grpc-js");

/** Every X.509-SVID the agent gives to this process: `{id, cert, key, bundle}`, PEM. Rejects with the agent's refusal. */
export async function fetchSvids(socket = process.env.SPIFFE_ENDPOINT_SOCKET) {
  const client = new Client(socket.replace(/^unix:\/\//, "unix:"), credentials.createInsecure());
  const message = await firstMessage(client, "/SpiffeWorkloadAPI/FetchX509SVID", Buffer.alloc(0), "workload.spiffe.io");
  return readSvids(message);
}

/** What the broker gives for process `pid` to who shows `identity` (null: nobody). */
export async function askBroker(path, identity, pid) {
  const channel = credentials.createSsl(
    identity === null ? null : Buffer.from(identity.bundle),
    identity === null ? null : Buffer.from(identity.key),
    identity === null ? null : Buffer.from(identity.cert),
    { checkServerIdentity: () => undefined, rejectUnauthorized: false },
  );
  const client = new Client(`unix:${path}`, channel, { "grpc.ssl_target_name_override": "everyhop" });
  const any = bytesField(1, "type.googleapis.com/spiffe.broker.WorkloadPIDReference");
  const reference = Buffer.concat([any, bytesField(2, Buffer.concat([Buffer.from([0x08]), varint(pid)]))]);
  const request = bytesField(1, bytesField(1, reference));
  return readSvids(await firstMessage(client, "/spiffe.broker.API/SubscribeToX509SVID", request, "broker.spiffe.io"));
}

function firstMessage(client, method, request, header) {
  const metadata = new Metadata();
  metadata.set(header, "true");
  const identity = (bytes) => bytes;
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 5_000;
    const call = client.makeServerStreamRequest(method, identity, identity, request, metadata, { deadline });
    call.once("data", (message) => {
      resolve(message);
      call.cancel();
    });
    call.once("error", (error) => reject(new Error(error.details || error.message)));
    call.once("end", () => reject(new Error("the stream ended without an answer")));
  }).finally(() => client.close());
}

/** SPEC: workloadapi.proto, X509SVIDResponse.svids = 1; X509SVID: spiffe_id 1, x509_svid 2, x509_svid_key 3, bundle 4. */
function readSvids(message) {
  return fields(message)
    .filter(({ number }) => number === 1)
    .map(({ value }) => Object.fromEntries(fields(value).map((field) => [field.number, field.value])))
    .map((svid) => ({
      id: String(svid[1]),
      cert: certificates(svid[2])
        .map((one) => pem(one))
        .join(""),
      key: pem(svid[3], "PRIVATE KEY"),
      bundle: certificates(svid[4])
        .map((one) => pem(one))
        .join(""),
    }));
}

/** DER certificates follow each other without anything between. */
function certificates(der) {
  const found = [];
  for (let at = 0; at + 4 <= der.length; ) {
    const length = 4 + der.readUInt16BE(at + 2);
    found.push(der.subarray(at, at + length));
    at += length;
  }
  return found;
}

/** Length-delimited fields of a protobuf message; others are passed over. */
function fields(message) {
  const found = [];
  let at = 0;
  const read = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = message[at++];
      value += (byte & 0x7f) * 2 ** shift;
      if ((byte & 0x80) === 0) {
        return value;
      }
    }
  };
  while (at < message.length) {
    const tag = read();
    if ((tag & 7) === 2) {
      const length = read();
      found.push({ number: tag >>> 3, value: message.subarray(at, at + length) });
      at += length;
    } else {
      read();
    }
  }
  return found;
}

function varint(value) {
  const out = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) {
      return Buffer.from([...out, rest]);
    }
    out.push((rest % 128) | 128);
  }
}

function bytesField(number, value) {
  const body = Buffer.from(value);
  return Buffer.concat([Buffer.from([(number << 3) | 2]), varint(body.length), body]);
}
