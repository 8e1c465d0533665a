/** The block `nodeAttestor` of the agent's configuration: how it proves its node, where not by a join token. */
import { resolve } from "node:path";
import { object, oneOf, optional, port, required, string } from "../core/base/validate.ts";
import { httpChallengeProof } from "../identity/attest/node/http-challenge/prove.ts";
import { k8sPsatProof } from "../identity/attest/node/k8s-psat/prove.ts";
import type { MakeProof } from "../identity/attest/node/proof.ts";
import { sshpopProof } from "../identity/attest/node/sshpop/prove.ts";
import { x509popProof } from "../identity/attest/node/x509pop/prove.ts";

const path = string({ what: "a path" });

export const nodeAttestorShape = object({
  kind: required(oneOf("x509pop", "k8s_psat", "sshpop", "http_challenge")),
  certificateFile: optional(path),
  privateKeyFile: optional(path),
  intermediatesFile: optional(path),
  cluster: optional(string({ what: "the name of a cluster" })),
  tokenFile: optional(path),
  hostKeyFile: optional(path),
  hostCertificateFile: optional(path),
  hostname: optional(string({ what: "a host name" })),
  agentName: optional(string()),
  port: optional(port()),
  advertisedPort: optional(port()),
});

export type NodeAttestorConfig = NonNullable<ReturnType<typeof nodeAttestorShape.read>>;

/** Which fields each kind takes; a trailing `!` says that it needs it. */
const FIELDS: Readonly<Record<NodeAttestorConfig["kind"], readonly string[]>> = {
  x509pop: ["certificateFile!", "privateKeyFile!", "intermediatesFile"],
  k8s_psat: ["cluster!", "tokenFile"],
  sshpop: ["hostKeyFile", "hostCertificateFile"],
  http_challenge: ["hostname", "agentName", "port", "advertisedPort"],
};

/** What is missing, or belongs to another kind. */
export function nodeAttestorFaults(given: NodeAttestorConfig): readonly { field: string; message: string }[] {
  const { kind, ...fields } = given;
  const known = FIELDS[kind];
  const missing = known.filter((name) => name.endsWith("!") && !Object.hasOwn(fields, name.slice(0, -1)));
  const foreign = Object.keys(fields).filter((name) => !known.includes(name) && !known.includes(`${name}!`));
  return [
    ...missing.map((name) => ({ field: name.slice(0, -1), message: `\`${kind}\` needs \`${name.slice(0, -1)}\`` })),
    ...foreign.map((field) => ({ field, message: `\`${field}\` is not for \`${kind}\`` })),
  ];
}

const FILES = [
  "certificateFile",
  "privateKeyFile",
  "intermediatesFile",
  "tokenFile",
  "hostKeyFile",
  "hostCertificateFile",
];

/** With absolute paths. */
export function nodeAttestorConfig(given: NodeAttestorConfig | undefined, dir: string): NodeAttestorConfig | null {
  if (given === undefined) {
    return null;
  }
  const absolute = Object.entries(given).map(([name, value]) => [
    name,
    FILES.includes(name) ? resolve(dir, String(value)) : value,
  ]);
  return Object.fromEntries(absolute) as NodeAttestorConfig;
}

/** How an agent proves its node, as configured. */
export function makeProof(config: NodeAttestorConfig): MakeProof {
  const { kind, certificateFile = "", privateKeyFile = "", cluster: name = "", ...rest } = config;
  switch (kind) {
    case "x509pop":
      return x509popProof({ certificateFile, privateKeyFile, ...rest });
    case "k8s_psat":
      return k8sPsatProof({ cluster: name, ...rest });
    case "sshpop":
      return sshpopProof(rest);
    case "http_challenge":
      return httpChallengeProof(rest);
  }
}
