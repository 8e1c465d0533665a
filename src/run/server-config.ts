/** The configuration file of `everyhop server`. */
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Service } from "../control/service.ts";
import { configError, EveryhopError, type Issue } from "../core/base/errors.ts";
import {
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
import { parseYaml, type YamlDocument } from "../core/base/yaml.ts";
import type { Role } from "../core/entries/role.ts";
import { meshConfigShape } from "../core/policy/mesh-config.ts";
import { type TrustDomain, trustDomainFault } from "../core/spiffe/id.ts";
import type { Level } from "../io/log.ts";
import { roleFaults, rolesOf, rolesShape } from "./roles-config.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface ServerConfig {
  readonly trustDomain: TrustDomain;
  readonly dataDir: string;
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
  };
  readonly services: readonly Service[];
  readonly roles: readonly Role[];
  readonly logLevel: Level;
}

/** `host:port`, an IPv6 host in brackets; port 0 takes a free one. */
export function address(): Shape<Address> {
  return refined(string({ what: "an address `host:port`" }), (text, at) => {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(text);
    const number = Number(match?.[3]);
    if (match === null || number > 65_535) {
      return at.fault(`\`${text}\` is not an address`, "write it as `127.0.0.1:8081`");
    }
    return { host: match[1] ?? match[2] ?? "", port: number };
  });
}

/** Checked by `shape`, and kept as it was written: another part reads it again. */
function unread(shape: Shape<unknown>): Shape<unknown> {
  return {
    read: (value, at) => (shape.read(value, at) === undefined ? undefined : value),
  };
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
    }),
  ),
  services: optional(record(service, label)),
  roles: optional(rolesShape),
  logLevel: optional(oneOf("debug", "info", "warn", "error")),
});

/** Paths of unix sockets are at most this long. */
const MAX_SOCKET_PATH = 107;

/**
 * Reads the file. Paths in it are relative to its folder. Errors: `file-missing`, `config-invalid` with all issues.
 */
export function readServerConfig(file: string): ServerConfig {
  const { documents, issues } = parseYaml(readText(file), file);
  const [document, more] = documents;
  const found: Issue[] = [...issues];
  if (more !== undefined) {
    found.push({ code: "config-invalid", severity: "error", message: "one document is expected", ...more.place([]) });
  }
  if (document === undefined) {
    throw configError(
      found.length > 0 ? found : [{ code: "config-invalid", severity: "error", message: "the file is empty", file }],
    );
  }
  const { value, issues: faults } = validate(shape, document);
  found.push(...faults);
  const config = value === undefined ? null : complete(value, dirname(resolve(file)));
  if (config !== null) {
    found.push(...pathFaults(config, document));
  }
  if (found.length > 0 || config === null) {
    throw configError(found);
  }
  return config;
}

type Given = NonNullable<ReturnType<typeof shape.read>>;

const LOOPBACK = "127.0.0.1";

function complete(given: Given, dir: string): ServerConfig {
  const dataDir = resolve(dir, given.dataDir);
  const { x509SvidTtl, jwtSvidTtl, caTtl, agentTtl } = given.ca ?? {};
  return {
    trustDomain: given.trustDomain,
    dataDir,
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
    },
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

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(error as Error).message}`, {
      hint: "`--config FILE` names the server's configuration",
      cause: error,
    });
  }
}
