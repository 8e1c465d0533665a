/** `everyhop.yaml`: the mesh of a folder. Every fault is collected with its place before anything is started. */
import { readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Protocol } from "../../core/api/snapshot.ts";
import { configError, EveryhopError, type Issue } from "../../core/base/errors.ts";
import {
  anything,
  duration,
  integer,
  list,
  object,
  oneOf,
  optional,
  port,
  type Reader,
  record,
  refined,
  required,
  type Shape,
  string,
  validate,
} from "../../core/base/validate.ts";
import { parseYaml, type YamlDocument } from "../../core/base/yaml.ts";
import { type TrustDomain, trustDomainFault } from "../../core/spiffe/id.ts";

export const MESH_FILE_NAME = "everyhop.yaml";

/** One service as its owner described it, with the defaults that need no look at the machine. */
export interface MeshService {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly command: readonly string[];
  /** The port in the mesh. */
  readonly port: number;
  /** Where the process listens; null: a free port is chosen and given to it as PORT. */
  readonly appPort: number | null;
  readonly protocol: Protocol;
  /** Null: made from the command, the script's digest, the user and the process itself. */
  readonly selectors: readonly string[] | null;
  /** Under --isolate; null: a user of its own. */
  readonly user: string | null;
  readonly env: Readonly<Record<string, string>>;
  /** How long it may take until it listens. */
  readonly startTimeoutMs: number;
}

export interface MeshFile {
  readonly file: string;
  /** The folder it is in: commands run there, paths are relative to it. */
  readonly dir: string;
  readonly trustDomain: TrustDomain;
  /** Absolute. */
  readonly policies: readonly string[];
  /** As written; the policy engine reads it. */
  readonly meshConfig: unknown;
  /** As written: durations such as `1h`. */
  readonly ca: Readonly<Record<string, string>>;
  /** In the file's order. */
  readonly services: readonly MeshService[];
  /** What `up` suggests when it is ready: text with `{service}`, `{service.inbound}`, `{service.metrics}`. */
  readonly try: readonly string[];
  readonly document: YamlDocument;
}

const LABEL = {
  pattern: /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
  what: "a DNS label (lower case letters, digits and dashes, at most 63)",
};
const RESERVED_NAMES: readonly string[] = ["localhost"];
const DEFAULT_START_TIMEOUT_MS = 20_000;

const label = (): Shape<string> => string(LABEL);
/** A duration, kept as it is written: the server reads it again. */
const durationText = (): Shape<string> => ({
  read: (value, at) => (duration().read(value, at) === undefined ? undefined : String(value)),
});
const text = (what: string): Shape<string> => string({ pattern: /\S/, what });
const scalar = (): Shape<string> => ({
  read: (value, at) =>
    ["string", "number", "boolean"].includes(typeof value)
      ? String(value)
      : at.fault("expected text, a number, true or false"),
});
const plainObject = (): Shape<unknown> =>
  refined(anything(), (value, at) =>
    typeof value === "object" && value !== null && !Array.isArray(value) ? value : at.fault("expected a mapping"),
  );

const serviceShape = object({
  namespace: required(label()),
  serviceAccount: optional(label()),
  labels: optional(record(scalar())),
  command: required(list(text("a program or an argument"), { min: 1 })),
  port: required(port()),
  appPort: optional(port()),
  protocol: optional(oneOf("http", "http2", "grpc", "tcp")),
  selectors: optional(
    list(string({ pattern: /^[a-z0-9_-]+:\S+/i, what: "a selector, as `unix:uid:1000`" }), { min: 1 }),
  ),
  user: optional(userShape()),
  env: optional(record(scalar(), { pattern: /^[A-Za-z_][A-Za-z0-9_]*$/, what: "the name of an environment variable" })),
  startTimeout: optional(duration()),
});

const meshShape = object({
  trustDomain: required(refined(string(), trustDomain)),
  policies: optional(list(text("a path"))),
  meshConfig: optional(plainObject()),
  ca: optional(
    object({
      x509SvidTtl: optional(durationText()),
      jwtSvidTtl: optional(durationText()),
      caTtl: optional(durationText()),
      agentTtl: optional(durationText()),
    }),
  ),
  services: required(refined(record(serviceShape, LABEL), services)),
  try: optional(list(string())),
});

function userShape(): Shape<string> {
  const uid = integer(1, 4_294_967_293);
  return {
    read: (value, at) =>
      typeof value === "number" ? uid.read(value, at)?.toString() : text("a user's name or number").read(value, at),
  };
}

function trustDomain(name: string, at: Reader): TrustDomain | undefined {
  const fault = trustDomainFault(name);
  return fault === null ? (name as TrustDomain) : at.fault(`\`${name}\`: ${fault}`, "write it as `example.com`");
}

type ServiceFields = NonNullable<ReturnType<(typeof serviceShape)["read"]>>;

function services(
  given: Readonly<Record<string, ServiceFields>>,
  at: Reader,
): Readonly<Record<string, ServiceFields>> | undefined {
  if (Object.keys(given).length === 0) {
    return at.fault("a mesh needs at least one service");
  }
  const appPorts = new Map<number, string>();
  for (const [name, service] of Object.entries(given)) {
    if (RESERVED_NAMES.includes(name)) {
      at.keyFault(name, `\`${name}\` cannot be a service's name`, "it means this machine");
    }
    const other = service?.appPort === undefined ? undefined : appPorts.get(service.appPort);
    if (other !== undefined) {
      at.into(name)
        .into("appPort")
        .fault(`port ${service.appPort} is already \`${other}\`'s`, "leave `appPort` out to get a free port as PORT");
    } else if (service?.appPort !== undefined) {
      appPorts.set(service.appPort, name);
    }
  }
  return given;
}

/**
 * Reads `DIR/everyhop.yaml`. Errors: `file-missing`, `config-invalid` with every issue; paths that are named and not there
 * are issues too.
 */
export function readMeshFile(dir: string): MeshFile {
  const file = join(resolve(dir), MESH_FILE_NAME);
  let source: string;
  try {
    source = readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${reasonOf(error)}`, {
      hint: `name the folder that holds an ${MESH_FILE_NAME}, as in \`everyhop up examples/payments\``,
      cause: error,
    });
  }
  return parseMeshFile(source, file, resolve(dir));
}

export function parseMeshFile(source: string, file: string, dir: string): MeshFile {
  const { documents, issues } = parseYaml(source, file);
  const [document, second] = documents;
  if (issues.length > 0 || document === undefined) {
    throw configError(
      issues.length > 0 ? issues : [{ ...fileFault(file), message: "is empty: a mesh needs at least one service" }],
    );
  }
  if (second !== undefined) {
    throw configError([{ ...fileFault(file), ...second.place([]), message: "holds more than one document" }]);
  }
  const { value, issues: faults } = validate(meshShape, document);
  const all = [...faults, ...missingPaths(value?.policies ?? policiesOf(document), document, dir)];
  if (value === undefined || all.length > 0) {
    throw configError(all);
  }
  return {
    file,
    dir,
    trustDomain: value.trustDomain,
    policies: (value.policies ?? []).map((path) => resolve(dir, path)),
    meshConfig: value.meshConfig ?? {},
    ca: Object.fromEntries(Object.entries(value.ca ?? {}).filter(([, ttl]) => ttl !== undefined)),
    services: Object.entries(value.services).map(([name, fields]) => meshService(name, fields)),
    try: value.try ?? [],
    document,
  };
}

function meshService(name: string, fields: ServiceFields): MeshService {
  return {
    name,
    namespace: fields.namespace,
    serviceAccount: fields.serviceAccount ?? name,
    labels: { ...fields.labels },
    command: fields.command,
    port: fields.port,
    appPort: fields.appPort ?? null,
    protocol: fields.protocol ?? "http",
    selectors: fields.selectors ?? null,
    user: fields.user ?? null,
    env: { ...fields.env },
    startTimeoutMs: fields.startTimeout ?? DEFAULT_START_TIMEOUT_MS,
  };
}

/** Paths as written, where the rest of the document has faults: those that are missing are told in the same go. */
function policiesOf(document: YamlDocument): readonly string[] {
  const given = (document.value as { policies?: unknown } | null)?.policies;
  return Array.isArray(given) ? given.map((path) => (typeof path === "string" ? path : "")) : [];
}

function missingPaths(policies: readonly string[], document: YamlDocument, dir: string): Issue[] {
  const issues: Issue[] = [];
  policies.forEach((path, index) => {
    const fault = path === "" ? null : pathFault(resolve(dir, path));
    if (fault !== null) {
      const place = document.place(["policies", index]);
      const hint = `paths are relative to \`${dir}\``;
      issues.push({ code: "file-missing", severity: "error", message: `\`${path}\`: ${fault}`, hint, ...place });
    }
  });
  return issues;
}

function pathFault(path: string): string | null {
  try {
    statSync(path);
    return null;
  } catch (error) {
    return reasonOf(error);
  }
}

function fileFault(file: string): { code: string; severity: "error"; file: string } {
  return { code: "config-invalid", severity: "error", file };
}

/** A system error in words. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case "ENOENT":
      return "there is no such file or folder";
    case "EACCES":
    case "EPERM":
      return "you may not read it";
    case "EISDIR":
      return "it is a folder";
    case "ENOTDIR":
      return "a part of the path is not a folder";
    case "ENOSPC":
      return "the disk is full";
    case "EROFS":
      return "the file system is read-only";
    default:
      return message;
  }
}
