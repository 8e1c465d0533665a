/** `spire-agent api fetch [x509]|fetch jwt|validate jwt|watch`: the Workload API of the local agent. */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { toJson } from "@bufbuild/protobuf";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { splitDer } from "../../core/x509/der.ts";
import { certificatesToPem, formatPem } from "../../core/x509/pem.ts";
import { type X509SVIDResponse, X509SVIDResponseSchema } from "../../gen/spiffe/workload_pb.js";
import { DEFAULT_AGENT_SOCKET } from "../../run/spire/sockets.ts";
import { socketTarget, workloadSocket } from "../../workload/socket.ts";
import { workloadClient, workloadMetadata } from "../../workload/workload-api.ts";
import { meshIfAny } from "../find-mesh.ts";
import { print } from "../ui.ts";
import { type Commands, isJson, plural, readDuration, required } from "./command.ts";
import { type Flags, flag, type Given, text, texts, UsageError } from "./flags.ts";

export const SOCKET_FLAG: Flags = {
  socketPath: text(
    `Path to the Workload API socket (default: SPIFFE_ENDPOINT_SOCKET, "${DEFAULT_AGENT_SOCKET}", the mesh of this folder)`,
  ),
};

const FLAGS: Flags = {
  ...SOCKET_FLAG,
  timeout: text("Time to wait for a response (default 5s)"),
  output: text("Desired output format (pretty, json); default: pretty."),
};

export function agentTarget(given: Given): string {
  const { SPIFFE_ENDPOINT_SOCKET: environment } = process.env;
  const standard = existsSync(DEFAULT_AGENT_SOCKET) ? DEFAULT_AGENT_SOCKET : meshIfAny({})?.agentSocket;
  const address = given.text("socketPath") || environment || standard;
  return socketTarget(
    address === undefined || address.startsWith("unix:") ? workloadSocket(address, {}) : resolve(address),
  );
}

const deadline = (given: Given) => ({
  metadata: workloadMetadata(),
  deadlineMs: (readDuration(given, "timeout") || 5) * 1_000,
});

type Client = ReturnType<typeof workloadClient>;

async function asking<T>(given: Given, question: (client: Client) => Promise<T>): Promise<T> {
  const client = workloadClient(agentTarget(given));
  try {
    return await question(client);
  } catch (error) {
    const { code, details, message } = error as { code?: number; details?: string; message: string };
    throw code === undefined
      ? error
      : new UsageError(`rpc error: code = ${rpcName(code)} desc = ${details ?? message}`);
  } finally {
    client.close();
  }
}

function rpcName(code: number): string {
  return (
    { 3: "InvalidArgument", 4: "DeadlineExceeded", 7: "PermissionDenied", 12: "Unimplemented", 14: "Unavailable" }[
      code
    ] ?? "Unknown"
  );
}

async function firstX509(client: Client, given: Given): Promise<X509SVIDResponse> {
  const stream = client.fetchX509SVID({}, deadline(given));
  try {
    for await (const response of stream as AsyncIterable<X509SVIDResponse>) {
      return response;
    }
  } finally {
    stream.on("error", () => {});
    stream.cancel();
  }
  throw new UsageError("the agent ended the stream without an answer");
}

const goTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} +0000 UTC`;

function validity(name: string, der: Uint8Array): string {
  const { notBeforeMs, notAfterMs } = parseCertificate(der);
  return `${`${name} Valid After:`.padEnd(24)}${goTime(notBeforeMs)}\n${`${name} Valid Until:`.padEnd(24)}${goTime(notAfterMs)}`;
}

function x509Text(response: X509SVIDResponse, ms: number): string {
  const parts = response.svids.map((svid) => {
    const [leaf = new Uint8Array(), ...intermediates] = splitDer(svid.x509Svid);
    return [
      `${"SPIFFE ID:".padEnd(24)}${svid.spiffeId}`,
      ...(svid.hint === "" ? [] : [`${"Hint:".padEnd(24)}${svid.hint}`]),
      validity("SVID", leaf),
      ...intermediates.map((der, index) => validity(`Intermediate #${index + 1}`, der)),
      ...splitDer(svid.bundle).map((der, index) => validity(`CA #${index + 1}`, der)),
    ].join("\n");
  });
  return `Received ${plural(response.svids.length, "svid")} after ${ms}ms\n\n${parts.join("\n\n")}\n`;
}

async function fetchX509(given: Given): Promise<void> {
  const start = Date.now();
  const response = await asking(given, (client) => firstX509(client, given));
  if (isJson(given)) {
    print(
      JSON.stringify(toJson(X509SVIDResponseSchema, response, { useProtoFieldName: true, alwaysEmitImplicit: true })),
    );
    return;
  }
  if (!given.flag("silent")) {
    print(x509Text(response, Date.now() - start));
  }
  const dir = given.text("write");
  if (dir !== "") {
    writeX509(response, dir);
  }
}

function writeX509(response: X509SVIDResponse, dir: string): void {
  const write = (what: string, name: string, contents: string, mode = 0o644) => {
    const path = join(dir, name);
    print(`Writing ${what} to file ${path}.`);
    rmSync(path, { force: true });
    writeFileSync(path, contents, { mode, flag: "wx" });
  };
  const federated = Object.entries(response.federatedBundles).sort(([a], [b]) => (a < b ? -1 : 1));
  response.svids.forEach((svid, index) => {
    write(`SVID #${index}`, `svid.${index}.pem`, certificatesToPem(splitDer(svid.x509Svid)));
    write(`key #${index}`, `svid.${index}.key`, formatPem("PRIVATE KEY", svid.x509SvidKey), 0o600);
    write(`bundle #${index}`, `bundle.${index}.pem`, certificatesToPem(splitDer(svid.bundle)));
    federated.forEach(([domain, bundle], at) => {
      const what = `federated bundle #${at} for trust domain ${domain}`;
      write(what, `federated_bundle.${index}.${at}.pem`, certificatesToPem(splitDer(bundle)));
    });
  });
}

async function fetchJwt(given: Given): Promise<void> {
  const audience = given.texts("audience").flatMap((value) => value.split(","));
  if (audience.length === 0) {
    throw new UsageError("audience must be specified");
  }
  const spiffeId = given.text("spiffeID");
  const [{ svids }, bundles] = await asking(given, async (client) => {
    const answer = await client.fetchJWTSVID({ audience, spiffeId }, deadline(given));
    const stream = client.fetchJWTBundles({}, deadline(given));
    stream.on("error", () => {});
    try {
      for await (const response of stream as AsyncIterable<{ bundles: Record<string, Uint8Array> }>) {
        return [answer, response.bundles] as const;
      }
    } finally {
      stream.cancel();
    }
    return [answer, {}] as const;
  });
  const documents = Object.entries<Uint8Array>(bundles).map(
    ([id, jwks]) => [id, Buffer.from(jwks).toString()] as const,
  );
  if (isJson(given)) {
    const tokens = svids.map(({ spiffeId: id, svid, hint }) => ({ spiffe_id: id, svid, hint }));
    print(
      JSON.stringify([
        { svids: tokens },
        { bundles: Object.fromEntries(documents.map(([id, jwks]) => [id, Buffer.from(jwks).toString("base64")])) },
      ]),
    );
    return;
  }
  for (const { spiffeId: id, svid, hint } of svids) {
    print(`token(${id}):\n\t${svid}${hint === "" ? "" : `\nhint(${id}):\n\t${hint}`}`);
  }
  for (const [id, jwks] of documents) {
    print(`bundle(${id}):\n\t${jwks}`);
  }
}

async function validateJwt(given: Given): Promise<void> {
  const audience = required(given, "audience", "audience must be specified");
  const svid = required(given, "svid", "svid must be specified");
  const { spiffeId, claims } = await asking(given, (client) =>
    client.validateJWTSVID({ audience, svid }, deadline(given)),
  ).catch((error: Error) => {
    throw new UsageError(
      `SVID is not valid: ${error.message.replace(/^rpc error: code = InvalidArgument desc = /, "")}`,
    );
  });
  if (isJson(given)) {
    print(JSON.stringify({ spiffe_id: spiffeId, claims: claims ?? {} }));
    return;
  }
  print(`SVID is valid.\nSPIFFE ID : ${spiffeId}\nClaims    : ${JSON.stringify(claims ?? {})}`);
}

async function watch(given: Given): Promise<void> {
  const client = workloadClient(agentTarget(given));
  const stream = client.fetchX509SVID({}, { metadata: workloadMetadata() });
  let last = Date.now();
  try {
    for await (const response of stream as AsyncIterable<X509SVIDResponse>) {
      print(x509Text(response, Date.now() - last));
      last = Date.now();
    }
  } finally {
    client.close();
  }
}

const X509_FLAGS: Flags = {
  ...FLAGS,
  silent: flag("Suppress stdout"),
  write: text("Write SVID data to the specified path (optional)"),
};

const X509 = { synopsis: "Fetches X509 SVIDs from the Workload API", flags: X509_FLAGS, run: fetchX509 };

export const WORKLOAD_COMMANDS: Commands = {
  "api fetch": X509,
  "api fetch x509": X509,
  "api fetch jwt": {
    synopsis: "Fetches a JWT SVID from the Workload API",
    flags: {
      ...FLAGS,
      audience: texts("comma separated list of audience values"),
      spiffeID: text("SPIFFE ID subject (optional)"),
    },
    run: fetchJwt,
  },
  "api validate jwt": {
    synopsis: "Validates a JWT SVID",
    flags: { ...FLAGS, audience: text("expected audience value"), svid: text("JWT SVID") },
    run: validateJwt,
  },
  "api watch": { synopsis: "Watches the Workload API for X509 SVIDs", flags: FLAGS, run: watch },
};
