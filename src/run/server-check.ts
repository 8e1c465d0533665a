/** Everything that can be found wrong with a server's configuration before it starts. */
import { relative } from "node:path";
import { judge, NOTHING_ACCEPTED } from "../control/change.ts";
import { meshFindings } from "../control/findings.ts";
import { PolicyReader, readMeshConfig } from "../control/policies.ts";
import { describeWorkload } from "../control/world.ts";
import { EveryhopError, type Issue } from "../core/base/errors.ts";
import { systemClock } from "../io/clock.ts";
import { watchFiles } from "../io/watch-files.ts";
import { connectionFault } from "./data-store.ts";
import { keepingOf, manifestIssues, readManifest } from "./manifest-check.ts";
import { readServerFile, type ServerConfig } from "./server-config.ts";

export interface ServerCheck {
  /** No issue is an error. */
  readonly ok: boolean;
  readonly issues: readonly Issue[];
}

/**
 * The faults of configurations and of the policies they name, and findings on what is legal and hardly meant, also in Kubernetes
 * manifests that deploy a server; files in them are written relative to `baseDir`. Errors: `file-missing`.
 */
export function checkServer(
  files: string | readonly string[],
  baseDir: string,
  options: { readonly expandEnv?: boolean | undefined } = {},
): ServerCheck {
  const all = typeof files === "string" ? [files] : files;
  const manifests = all.map((file) => readManifest(file));
  const configs = all.filter((_, index) => manifests[index] === null);
  const issues = [
    ...configs.flatMap((file) => issuesOf(file, baseDir, options)),
    ...manifestIssues(
      manifests.flatMap((documents) => documents ?? []),
      keepingOf(configs),
    ),
  ];
  return { ok: issues.every(({ severity }) => severity !== "error"), issues };
}

function issuesOf(
  file: string,
  baseDir: string,
  options: { readonly expandEnv?: boolean | undefined },
): readonly Issue[] {
  try {
    const { config, findings } = readServerFile(file, options);
    return [...findings, ...databaseIssues(config, file), ...policyIssues(config, baseDir)];
  } catch (error) {
    if (error instanceof EveryhopError && error.issues.length > 0) {
      return error.issues;
    }
    throw error;
  }
}

/** Files that the connection names and nobody can read: what else is wrong with it only the database can say. */
function databaseIssues({ dataStore }: ServerConfig, file: string): Issue[] {
  const fault = connectionFault(dataStore);
  const { code, message, hint } = fault ?? {};
  return code === undefined || message === undefined
    ? []
    : [{ code, severity: "error", message, file, path: "dataStore", ...(hint === undefined ? {} : { hint }) }];
}

function policyIssues({ policies, trustDomain, services, meshConfig }: ServerConfig, baseDir: string): Issue[] {
  const watched = watchFiles(policies, { clock: systemClock });
  try {
    const { files, faults } = watched.state.value;
    const named = new Map([...files].map(([path, text]) => [relative(baseDir, path), text]));
    const workloads = services.map((service) => describeWorkload(service, trustDomain));
    const mesh = { trustDomain, meshConfig: readMeshConfig(meshConfig).meshConfig, workloads };
    const { refused, accepted } = judge(named, NOTHING_ACCEPTED, { mesh, reader: new PolicyReader() });
    return [...faults, ...refused, ...meshFindings(accepted, mesh)];
  } finally {
    watched.close();
  }
}
