/** The configuration file of `everyhop server`. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { Service } from "../control/service.ts";
import { configError, type Issue } from "../core/base/errors.ts";
import {
  boolean,
  duration,
  list,
  object,
  oneOf,
  oneOrMany,
  optional,
  port,
  record,
  refined,
  required,
  type Shape,
  string,
  validate,
} from "../core/base/validate.ts";
import type { YamlDocument } from "../core/base/yaml.ts";
import type { Role } from "../core/entries/role.ts";
import { meshConfigShape } from "../core/policy/mesh-config.ts";
import { type SpiffeId, spiffeIdFault, type TrustDomain, trustDomainFault } from "../core/spiffe/id.ts";
import { lifetimeFindings } from "../identity/authority/lifetimes.ts";
import type { Ceilings, KeyPlace } from "../identity/intent/intent.ts";
import { KEY_TYPES, type KeyType } from "../identity/intent/key-type.ts";
import type { FederationConfig } from "../identity/server/federation/federation.ts";
import type { UpstreamConfig } from "../identity/server/upstream/open.ts";
import type { Level } from "../io/log.ts";
import { type Address, address } from "./address.ts";
import { readConfigFile } from "./config-file.ts";
import { type DataStoreConfig, dataStoreConfig, dataStoreShape } from "./data-store.ts";
import { federationConfig, federationFaults, federationShape } from "./federation-config.ts";
import { ceilings, keyManagerFaults, keyManagerShape, keyPlace, signerShape } from "./key-config.ts";
import { type NodeAttestorsConfig, nodeAttestorsConfig, nodeAttestorsShape } from "./node-attestors.ts";
import { roleFaults, rolesOf, rolesShape } from "./roles-config.ts";
import { spireServer } from "./spire/server-file.ts";
import { upstreamConfig, upstreamFaults, upstreamShape } from "./upstream-config.ts";

export interface ServerConfig {
  readonly trustDomain: TrustDomain;
  readonly dataDir: string;
  readonly dataStore: DataStoreConfig;
  readonly listen: readonly Address[];
  readonly adminSocket: string;
  readonly http: Address;
  readonly xds: readonly Address[];
  /** Absolute paths. */
  readonly policies: readonly string[];
  readonly meshConfig: unknown;
  readonly ca: {
    readonly x509SvidTtlMs?: number;
    readonly jwtSvidTtlMs?: number;
    readonly caTtlMs?: number;
    /** Life of an agent's own SVID. */
    readonly agentTtlMs?: number;
    /** `iss` of JWT-SVIDs. */
    readonly jwtIssuer?: string;
    readonly caKeyType?: KeyType;
    readonly jwtKeyType?: KeyType;
  };
  /** Where the keys are, and what their signer never goes beyond. */
  readonly keys: KeyPlace;
  readonly ceilings: Ceilings;
  /** Who may administer over mutual TLS, without an entry that says so. */
  readonly adminIds: readonly SpiffeId[];
  /** Which allowances of a peer are enforced. */
  readonly rateLimit: { readonly attestation: boolean; readonly signing: boolean };
  /** Beside the one on `http`: SPIRE's health checks. */
  readonly health: HealthConfig | null;
  readonly nodeAttestors: NodeAttestorsConfig;
  /** Which agents are forgotten after they expired; null: none. */
  readonly pruneAgents: { readonly expiredForMs: number; readonly nonReattestable: boolean } | null;
  /** Our bundle endpoint, and whose bundles we follow; null: neither. */
  readonly federation: FederationConfig | null;
  /** Who certifies our CAs; null: they are roots. */
  readonly upstream: UpstreamConfig | null;
  readonly services: readonly Service[];
  readonly roles: readonly Role[];
  readonly logLevel: Level;
}

export interface HealthConfig {
  readonly listen: Address;
  readonly livePath: string;
  readonly readyPath: string;
}

/** Checked by `shape`, and kept as it was written: another part reads it again. */
function unread(shape: Shape<unknown>): Shape<unknown> {
  return {
    read: (value, at) => (shape.read(value, at) === undefined ? undefined : value),
  };
}

function spiffeId(): Shape<SpiffeId> {
  return refined(string({ what: "a SPIFFE ID" }), (text, at) => {
    const fault = spiffeIdFault(text);
    return fault === null ? (text as SpiffeId) : at.fault(`\`${text}\` is not a SPIFFE ID: ${fault}`);
  });
}

/** Liveness and readiness on a listener of their own, as SPIRE's `health_checks`. */
export function healthShape() {
  const path = string({ pattern: /^\/[^\s?#]*$/, what: "a path that begins with `/`" });
  return object({ listen: required(address()), livePath: optional(path), readyPath: optional(path) });
}

export function healthConfig(given: ReturnType<ReturnType<typeof healthShape>["read"]>): HealthConfig | null {
  return given === undefined ? null : { livePath: "/live", readyPath: "/ready", ...given };
}

const label = { pattern: /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, what: "a name (lower-case letters, digits, `-`)" };
const segment = string({ pattern: /^[A-Za-z0-9._-]+$/, what: "a segment of a SPIFFE ID" });

const service = object({
  namespace: required(string(label)),
  serviceAccount: optional(segment),
  labels: optional(record(string())),
  port: required(port()),
  protocol: optional(oneOf("http", "http2", "grpc", "tcp")),
  endpoints: required(
    list(refined(address(), ({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`)),
  ),
});

const shape = object({
  trustDomain: required(
    refined(string({ what: "a trust domain" }), (name, at) => {
      const fault = trustDomainFault(name);
      return fault === null ? (name as TrustDomain) : at.fault(`\`${name}\`: ${fault}`);
    }),
  ),
  dataDir: required(string({ what: "a path" })),
  dataStore: optional(dataStoreShape()),
  listen: optional(oneOrMany(address())),
  adminSocket: optional(string({ what: "a path" })),
  http: optional(address()),
  xds: optional(oneOrMany(address())),
  policies: optional(list(string({ what: "a path" }))),
  meshConfig: optional(unread(meshConfigShape)),
  ca: optional(
    object({
      x509SvidTtl: optional(duration(1_000)),
      jwtSvidTtl: optional(duration(1_000)),
      caTtl: optional(duration(1_000)),
      agentTtl: optional(duration(1_000)),
      jwtIssuer: optional(string({ what: "an issuer" })),
      keyType: optional(oneOf(...KEY_TYPES)),
      jwtKeyType: optional(oneOf(...KEY_TYPES)),
    }),
  ),
  keyManager: optional(keyManagerShape),
  upstreamAuthority: optional(upstreamShape),
  signer: optional(signerShape),
  adminIds: optional(list(spiffeId())),
  rateLimit: optional(object({ attestation: optional(boolean()), signing: optional(boolean()) })),
  health: optional(healthShape()),
  nodeAttestors: optional(nodeAttestorsShape),
  pruneAgents: optional(object({ expiredFor: required(duration(1_000)), nonReattestable: optional(boolean()) })),
  federation: optional(federationShape),
  services: optional(record(service, label)),
  roles: optional(rolesShape),
  logLevel: optional(oneOf("debug", "info", "warn", "error")),
});

/** Paths of unix sockets are at most this long. */
const MAX_SOCKET_PATH = 107;

export interface ServerFile {
  readonly config: ServerConfig;
  /** Warnings: what is legal in SPIRE's file and different here. */
  readonly findings: readonly Issue[];
}

/**
 * Reads the file, ours or SPIRE's. Paths in ours are relative to its folder. Errors: `file-missing`, `config-invalid` with all
 * issues.
 */
export function readServerFile(file: string, options: { readonly expandEnv?: boolean | undefined } = {}): ServerFile {
  const hint = "`--config FILE` names the server's configuration";
  const { document, findings, baseDir } = readConfigFile(file, { ...options, hint, spire: spireServer });
  const { value, issues } = validate(shape, document);
  const config = value === undefined ? null : complete(value, baseDir);
  const found =
    config === null || value === undefined
      ? issues
      : [
          ...issues,
          ...pathFaults(config, document),
          ...federationFaults(value.federation, config.trustDomain, document),
          ...keyFaults(value, document),
        ];
  if (found.length > 0 || config === null) {
    throw configError([...found, ...findings]);
  }
  return { config, findings: [...findings, ...lifetimeIssues(config, document)] };
}

/** What is legal of lifetimes and hardly meant. */
function lifetimeIssues({ ca }: ServerConfig, document: YamlDocument): Issue[] {
  return lifetimeFindings(ca).map(({ field, message, hint }) => {
    const place = document.place(["ca", field]);
    return { code: "lifetime-cut-short", severity: "warning", message, hint, ...place };
  });
}

/** The configuration alone. */
export function readServerConfig(file: string): ServerConfig {
  return readServerFile(file).config;
}

type Given = NonNullable<ReturnType<typeof shape.read>>;

const LOOPBACK = "127.0.0.1";

function complete(given: Given, dir: string): ServerConfig {
  const dataDir = resolve(dir, given.dataDir);
  const { x509SvidTtl, jwtSvidTtl, caTtl, agentTtl, jwtIssuer, keyType, jwtKeyType } = given.ca ?? {};
  return {
    trustDomain: given.trustDomain,
    dataDir,
    dataStore: dataStoreConfig(given.dataStore, dir),
    listen: given.listen ?? [{ host: LOOPBACK, port: 8_081 }],
    adminSocket: resolve(dir, given.adminSocket ?? resolve(dataDir, "admin.sock")),
    http: given.http ?? { host: LOOPBACK, port: 8_080 },
    xds: given.xds ?? [{ host: LOOPBACK, port: 15_010 }],
    policies: (given.policies ?? []).map((path) => resolve(dir, path)),
    meshConfig: given.meshConfig ?? {},
    ca: {
      ...(x509SvidTtl === undefined ? {} : { x509SvidTtlMs: x509SvidTtl }),
      ...(jwtSvidTtl === undefined ? {} : { jwtSvidTtlMs: jwtSvidTtl }),
      ...(caTtl === undefined ? {} : { caTtlMs: caTtl }),
      ...(agentTtl === undefined ? {} : { agentTtlMs: agentTtl }),
      ...(jwtIssuer === undefined ? {} : { jwtIssuer }),
      ...(keyType === undefined ? {} : { caKeyType: keyType }),
      ...(jwtKeyType === undefined ? {} : { jwtKeyType }),
    },
    upstream: upstreamConfig(given.upstreamAuthority, dir),
    keys: keyPlace(given.keyManager, dir, dataDir),
    ceilings: ceilings(given.signer, caTtl),
    adminIds: given.adminIds ?? [],
    rateLimit: { attestation: true, signing: true, ...given.rateLimit },
    health: healthConfig(given.health),
    nodeAttestors: nodeAttestorsConfig(given.nodeAttestors, dir),
    pruneAgents:
      given.pruneAgents === undefined
        ? null
        : {
            expiredForMs: given.pruneAgents.expiredFor,
            nonReattestable: given.pruneAgents.nonReattestable ?? false,
          },
    federation: federationConfig(given.federation, dir),
    services: Object.entries(given.services ?? {}).map(([name, one]) => ({
      name,
      namespace: one.namespace,
      serviceAccount: one.serviceAccount ?? name,
      labels: { ...one.labels },
      port: one.port,
      protocol: one.protocol ?? "http",
      endpoints: one.endpoints,
    })),
    roles: rolesOf(given.roles ?? {}),
    logLevel: given.logLevel ?? "info",
  };
}

function keyFaults({ keyManager, upstreamAuthority }: Given, document: YamlDocument): Issue[] {
  const issues = (
    block: string,
    hint: string,
    faults: readonly { readonly field: string; readonly message: string }[],
  ): Issue[] =>
    faults.map(({ field, message }) => {
      const place = document.place([block, field]);
      return { code: "config-invalid", severity: "error", message, hint, ...place };
    });
  return [
    ...issues("keyManager", "docs/operate.md#where-the-keys-are", keyManagerFaults(keyManager)),
    ...issues("upstreamAuthority", "docs/operate.md#an-authority-above", upstreamFaults(upstreamAuthority)),
  ];
}

/** What only the machine can say of paths. */
function pathFaults(config: ServerConfig, document: YamlDocument): Issue[] {
  const issues: Issue[] = [];
  const fault = (path: readonly (string | number)[], message: string, hint: string): void => {
    issues.push({ code: "config-invalid", severity: "error", message, hint, ...document.place(path) });
  };
  config.policies.forEach((path, index) => {
    if (statSync(path, { throwIfNoEntry: false }) === undefined) {
      fault(["policies", index], `\`${path}\` does not exist`, "paths are relative to the folder of this file");
    }
  });
  if (Buffer.byteLength(config.adminSocket) > MAX_SOCKET_PATH) {
    const message = `the path of the admin socket is longer than ${MAX_SOCKET_PATH} bytes: \`${config.adminSocket}\``;
    fault(["adminSocket"], message, "choose a shorter `adminSocket`");
  }
  const { caTtlMs = 86_400_000, x509SvidTtlMs = 3_600_000 } = config.ca;
  if (x509SvidTtlMs >= caTtlMs) {
    fault(["ca"], "`x509SvidTtl` is not shorter than `caTtl`", "give the CA at least six times the life of an SVID");
  }
  for (const { path, message } of roleFaults(config.roles, config.trustDomain)) {
    fault(["roles", ...path], message, "docs/operate.md#administrators-with-limits");
  }
  return issues;
}
