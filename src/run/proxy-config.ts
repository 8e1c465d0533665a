/** The sidecar's configuration file. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { configError, EveryhopError, type Issue } from "../core/base/errors.ts";
import {
  integer,
  object,
  oneOf,
  oneOrMany,
  optional,
  record,
  refined,
  required,
  type Shape,
  string,
  validate,
} from "../core/base/validate.ts";
import { parseYaml } from "../core/base/yaml.ts";
import { type SpiffeId, spiffeIdFault, type TrustDomain, trustDomainFault } from "../core/spiffe/id.ts";
import type { Level } from "../io/log.ts";
import { type Address, parseAddress } from "../io/net.ts";

export interface ProxyConfig {
  readonly service: string;
  readonly namespace: string;
  readonly trustDomain: TrustDomain;
  /** `unix://…` */
  readonly agentSocket: string;
  readonly brokerSocket: string;
  /** `host:port` of each replica of the control plane. */
  readonly control: readonly string[];
  /** The process whose identity this sidecar serves with. */
  readonly workload: { readonly spiffeId: SpiffeId; readonly pid: number | null; readonly pidFile: string | null };
  readonly inbound: Address;
  readonly app: Address;
  /** Where the service dials each other one, by `name` or `namespace/name`. */
  readonly outbound: Readonly<Record<string, Address>>;
  /** Listeners that the kernel redirects connections to. */
  readonly capture: { readonly outbound?: Address; readonly inbound?: Address };
  readonly metrics: Address | null;
  /** A file, or `-` for standard output. */
  readonly accessLog: string;
  readonly logLevel: Level;
}

const name = (what: string): Shape<string> => string({ pattern: /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, what });

const address: Shape<Address> = refined(string({ what: "`host:port`" }), (text, at) => {
  const parsed = parseAddress(text);
  return parsed ?? at.fault(`\`${text}\` is not \`host:port\``, "write it as `127.0.0.1:15006` or `[::1]:15006`");
});

const socket: Shape<string> = refined(string({ what: "the path of a socket" }), (text, at) =>
  text.replace(/^unix:(\/\/)?/, "").startsWith("/")
    ? text
    : at.fault(`\`${text}\` is not an absolute path`, "write it as `unix:///run/everyhop/agent.sock`"),
);

const trustDomain: Shape<TrustDomain> = refined(string(), (text, at) => {
  const fault = trustDomainFault(text);
  return fault === null ? (text as TrustDomain) : at.fault(`\`${text}\` is not a trust domain: ${fault}`);
});

const spiffeId: Shape<SpiffeId> = refined(string(), (text, at) => {
  const fault = spiffeIdFault(text);
  return fault === null ? (text as SpiffeId) : at.fault(`\`${text}\` is not a SPIFFE ID: ${fault}`);
});

const SHAPE = object({
  service: required(name("a service's name")),
  namespace: required(name("a namespace")),
  trustDomain: required(trustDomain),
  agentSocket: required(socket),
  brokerSocket: required(socket),
  control: required(oneOrMany(address)),
  workload: required(
    object({
      spiffeId: required(spiffeId),
      pid: optional(integer(1, 2 ** 31 - 1)),
      pidFile: optional(string({ what: "a file" })),
    }),
  ),
  inbound: required(address),
  app: required(address),
  outbound: optional(record(address, { pattern: /^[a-z0-9][-a-z0-9./]*$/, what: "a service's name" })),
  capture: optional(object({ outbound: optional(address), inbound: optional(address) })),
  metrics: optional(address),
  accessLog: optional(string({ what: "a file, or `-`" })),
  logLevel: optional(oneOf("debug", "info", "warn", "error")),
});

/**
 * Reads the file; paths in it are relative to its folder. Errors: `file-missing`; `config-invalid` with every issue's place.
 */
export function loadProxyConfig(file: string): ProxyConfig {
  const { documents, issues } = parseYaml(readText(file), file);
  const [document] = documents;
  if (issues.length > 0) {
    throw configError(issues);
  }
  if (document === undefined) {
    throw configError([{ code: "config-invalid", severity: "error", message: "the file is empty", file }]);
  }
  const { value, issues: faults } = validate(SHAPE, document);
  if (value === undefined) {
    throw configError(faults);
  }
  const { workload, outbound = {}, capture = {}, metrics = null, accessLog = "-", logLevel = "info" } = value;
  const { pid = null, pidFile } = workload;
  if ((pid === null) === (pidFile === undefined)) {
    const issue: Issue = {
      code: "config-invalid",
      severity: "error",
      message: pid === null ? "`pid` or `pidFile` is missing" : "`pid` and `pidFile` are both given",
      hint: "name the service's process by one of the two",
      ...document.place(["workload"]),
    };
    throw configError([issue]);
  }
  const at = (path: string) => resolve(dirname(file), path);
  return {
    ...value,
    control: value.control.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`),
    workload: { spiffeId: workload.spiffeId, pid, pidFile: pidFile === undefined ? null : at(pidFile) },
    outbound,
    capture,
    metrics,
    accessLog: accessLog === "-" ? "-" : at(accessLog),
    logLevel,
  };
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(error as Error).message}`, {
      hint: "name the sidecar's configuration with `--config FILE`",
      cause: error,
    });
  }
}
