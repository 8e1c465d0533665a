/** The agent's configuration file. */
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { configError, EveryhopError, type Issue } from "../core/base/errors.ts";
import {
  boolean,
  list,
  object,
  oneOf,
  oneOrMany,
  optional,
  refined,
  required,
  type Shape,
  string,
  validate,
} from "../core/base/validate.ts";
import { type SpiffeId, sidecarId, type TrustDomain, trustDomainFault } from "../core/spiffe/id.ts";
import type { TrustSource } from "../identity/agent/bootstrap.ts";
import { SDS_DEFAULTS, type SdsOptions } from "../identity/agent/sds-secrets.ts";
import type { VerifierOptions } from "../identity/agent/workload-api.ts";
import type { Level } from "../io/log.ts";
import { readConfigFile } from "./config-file.ts";
import { type NodeAttestorConfig, nodeAttestorConfig, nodeAttestorFaults, nodeAttestorShape } from "./node-attestor.ts";
import { type HealthConfig, healthConfig, healthShape } from "./server-config.ts";
import { hostPort, spiffeId } from "./shapes.ts";
import { spireAgent } from "./spire/agent-file.ts";
import { DEFAULT_WORKLOAD_ATTESTORS, WORKLOAD_ATTESTORS, type WorkloadAttestorsConfig } from "./workload-attestors.ts";

export interface AgentConfig {
  readonly trustDomain: TrustDomain;
  /** `host:port` of each replica of the server. */
  readonly servers: readonly string[];
  readonly dataDir: string;
  /** Whether identities are kept in `dataDir` for the next start. */
  readonly cache: "disk" | "memory";
  /** The key that what is kept is sealed with; not in `dataDir`. */
  readonly cacheKeyFile: string;
  readonly joinToken: string | null;
  readonly joinTokenFile: string | null;
  /** How the node proves itself; null: by a join token. */
  readonly nodeAttestor: NodeAttestorConfig | null;
  readonly trustBundle: TrustSource;
  /** Paths. */
  readonly socket: string;
  readonly brokerSocket: string;
  readonly adminSocket: string;
  /** The broker endpoint over TCP; null: on its socket alone. */
  readonly brokerListen: { readonly host: string; readonly port: number } | null;
  readonly brokers: readonly SpiffeId[];
  readonly workloadAttestors: WorkloadAttestorsConfig;
  /** Names under which Envoy asks for secrets. */
  readonly sds: SdsOptions;
  /** Who may ask for others' identities on the admin socket. */
  readonly authorizedDelegates: readonly SpiffeId[];
  readonly verifiers: VerifierOptions;
  /** `host:port`; null: none are served. */
  readonly metrics: string | null;
  /** Beside the one on `metrics`: SPIRE's health checks. */
  readonly health: HealthConfig | null;
  readonly logLevel: Level;
}

const DEFAULT_SOCKET = "/run/everyhop/agent.sock";
const DEFAULT_BROKER_SOCKET = "/run/everyhop/broker.sock";

const trustDomain: Shape<TrustDomain> = refined(string(), (name, at) => {
  const fault = trustDomainFault(name);
  return fault === null ? (name as TrustDomain) : at.fault(`\`${name}\` is not a trust domain: ${fault}`);
});

const SHAPE = object({
  trustDomain: required(trustDomain),
  server: required(oneOrMany(hostPort())),
  dataDir: required(string({ what: "a folder" })),
  cache: optional(oneOf("disk", "memory")),
  cacheKeyFile: optional(string({ what: "a file" })),
  joinToken: optional(string({ pattern: /^[A-Za-z0-9._-]{1,255}$/, what: "a join token" })),
  joinTokenFile: optional(string({ what: "a file" })),
  nodeAttestor: optional(nodeAttestorShape),
  trustBundle: optional(string({ what: "a PEM file" })),
  trustBundleUrl: optional(string({ pattern: /^https?:\/\/[^\s@]+$/, what: "a URL" })),
  trustBundleUnixSocket: optional(string({ what: "the path of a socket" })),
  trustBundleFormat: optional(oneOf("pem", "spiffe")),
  insecureBootstrap: optional(boolean()),
  socket: optional(string({ what: "the path of a socket" })),
  brokerSocket: optional(string({ what: "the path of a socket" })),
  brokerListen: optional(hostPort()),
  adminSocket: optional(string({ what: "the path of a socket" })),
  brokers: optional(list(spiffeId)),
  workloadAttestors: optional(WORKLOAD_ATTESTORS),
  sds: optional(
    object({
      defaultSvidName: optional(string()),
      defaultBundleName: optional(string()),
      defaultAllBundlesName: optional(string()),
      disableSpiffeCertValidation: optional(boolean()),
    }),
  ),
  authorizedDelegates: optional(list(spiffeId)),
  verifiers: optional(object({ allowUnauthenticated: optional(boolean()), foreignClaims: optional(list(string())) })),
  metrics: optional(hostPort()),
  health: optional(healthShape()),
  logLevel: optional(oneOf("debug", "info", "warn", "error")),
});

/** Longest path a unix socket may have. Source: unix(7). */
const MAX_SOCKET_PATH = 107;

const fits = (path: string): boolean => Buffer.byteLength(path) <= MAX_SOCKET_PATH;

/** Where the agent's own administration listens: its data folder, or beside the Workload API where that path is too long. */
export function defaultAdminSocket(dataDir: string, socket: string): string {
  const path = join(dataDir, "admin.sock");
  return fits(path) ? path : join(dirname(socket), "agent-admin.sock");
}

export interface AgentFile {
  readonly config: AgentConfig;
  /** Warnings: what is legal in SPIRE's file and different here. */
  readonly findings: readonly Issue[];
}

/**
 * Reads the file, ours or SPIRE's; paths in ours are relative to its folder. Errors: `file-missing`; `config-invalid` with every
 * issue's place.
 */
export function loadAgentFile(file: string, options: { readonly expandEnv?: boolean | undefined } = {}): AgentFile {
  const hint = "name the agent's configuration with `--config FILE`";
  const { document, findings, baseDir } = readConfigFile(file, { ...options, hint, spire: spireAgent });
  const validated = validate(SHAPE, document);
  if (validated.value === undefined) {
    throw configError([...validated.issues, ...findings]);
  }
  const given = validated.value;
  const further: Issue[] = [];
  const fault = (path: string, message: string, hint: string) =>
    further.push({ code: "config-invalid", severity: "error", message, hint, ...document.place(path.split(".")) });
  const at = (path: string) => resolve(baseDir, path.replace(/^unix:(\/\/)?/, ""));
  const { socket = DEFAULT_SOCKET, brokerSocket = DEFAULT_BROKER_SOCKET } = given;
  const adminSocket =
    given.adminSocket === undefined ? defaultAdminSocket(at(given.dataDir), at(socket)) : at(given.adminSocket);
  const sockets = { socket: at(socket), brokerSocket: at(brokerSocket), adminSocket };
  for (const [key, path] of Object.entries(sockets)) {
    if (!fits(path)) {
      fault(key, `\`${path}\` is too long for a socket (${MAX_SOCKET_PATH} bytes)`, "choose a shorter folder");
    }
  }
  const dataDir = at(given.dataDir);
  const cacheKeyFile = given.cacheKeyFile === undefined ? join(`${dataDir}-key`, "cache.key") : at(given.cacheKeyFile);
  if (cacheKeyFile.startsWith(`${dataDir}/`)) {
    fault("cacheKeyFile", "the key is in the folder whose files it seals", "keep it apart from `dataDir`");
  }
  const trustBundle = trustSource(given, at, fault);
  if (given.joinToken !== undefined && given.joinTokenFile !== undefined) {
    fault("joinTokenFile", "`joinToken` is given already", "give one of the two");
  }
  for (const { field, message } of given.nodeAttestor === undefined ? [] : nodeAttestorFaults(given.nodeAttestor)) {
    fault(`nodeAttestor.${field}`, message, "docs/identity.md#agents");
  }
  const attestors = (document.value as { workloadAttestors?: object | null }).workloadAttestors;
  for (const [kind, settings] of Object.entries(attestors ?? {})) {
    if (settings === null) {
      fault(
        `workloadAttestors.${kind}`,
        `\`${kind}\` has no value`,
        `write \`${kind}: {}\` to have it with its defaults`,
      );
    }
  }
  if (attestors !== undefined && Object.keys(attestors ?? {}).length === 0) {
    fault("workloadAttestors", "names no attestor: no workload would get an identity", "write `unix: {}` at least");
  }
  if (further.length > 0) {
    throw configError([...further, ...findings]);
  }
  const config = {
    trustDomain: given.trustDomain,
    servers: [...new Set(given.server)],
    dataDir,
    cache: given.cache ?? "disk",
    cacheKeyFile,
    joinToken: given.joinToken ?? null,
    joinTokenFile: given.joinTokenFile === undefined ? null : at(given.joinTokenFile),
    nodeAttestor: nodeAttestorConfig(given.nodeAttestor, baseDir),
    trustBundle,
    ...sockets,
    brokerListen: given.brokerListen === undefined ? null : addressOf(given.brokerListen),
    brokers: given.brokers ?? [sidecarId(given.trustDomain)],
    workloadAttestors: given.workloadAttestors ?? DEFAULT_WORKLOAD_ATTESTORS,
    sds: { ...SDS_DEFAULTS, ...given.sds },
    authorizedDelegates: given.authorizedDelegates ?? [],
    verifiers: given.verifiers ?? {},
    metrics: given.metrics ?? null,
    health: healthConfig(given.health),
    logLevel: given.logLevel ?? "info",
  };
  return { config, findings };
}

type Given = NonNullable<ReturnType<typeof SHAPE.read>>;

/** What the server is trusted by at first: one of three. The format is seen from the text itself. */
function trustSource(
  given: Given,
  at: (path: string) => string,
  fault: (path: string, message: string, hint: string) => void,
): TrustSource {
  const { trustBundle: file, trustBundleUrl: url, trustBundleUnixSocket: socket, insecureBootstrap = false } = given;
  const sources = [file !== undefined, url !== undefined, insecureBootstrap].filter(Boolean).length;
  const choice = "give one of `trustBundle`, `trustBundleUrl` and `insecureBootstrap: true`";
  if (sources !== 1) {
    fault("trustBundle", sources === 0 ? "`trustBundle` is missing" : "more than one says what to trust", choice);
  }
  if (url?.startsWith("http:") === true && socket === undefined) {
    fault("trustBundleUrl", `\`${url}\` is not https`, "whoever is on the way could change it");
  }
  if (url !== undefined) {
    return { kind: "url", url, socket: socket === undefined ? null : at(socket) };
  }
  return file === undefined ? { kind: "server" } : at(file);
}

/** The configuration alone. */
export function loadAgentConfig(file: string): AgentConfig {
  return loadAgentFile(file).config;
}

/** The token to join with, or null; a file that is missing or empty is none (it is needed once only). */
export function readJoinToken(config: AgentConfig): string | null {
  if (config.joinTokenFile === null) {
    return config.joinToken;
  }
  try {
    return readFileSync(config.joinTokenFile, "utf8").trim() || null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      return null;
    }
    throw new EveryhopError("file-missing", `cannot read \`${config.joinTokenFile}\`: ${(error as Error).message}`);
  }
}

function addressOf(text: string): { readonly host: string; readonly port: number } {
  const colon = text.lastIndexOf(":");
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(text.slice(colon + 1)) };
}
