/** Istio's resources as the control plane holds them: read from files, chosen per workload, written for sidecars. */
import type { WorkloadDescription } from "../core/api/snapshot.ts";
import { configError, EveryhopError, type Issue, toEveryhopError } from "../core/base/errors.ts";
import { compile } from "../core/policy/compile.ts";
import { type MeshConfig, parseMeshConfig } from "../core/policy/mesh-config.ts";
import { type ParsedResources, parseResources, resourceToJson, withoutDuplicates } from "../core/policy/parse.ts";
import type { Resource } from "../core/policy/resources.ts";
import { selectResources } from "../core/policy/select.ts";

/** The mesh that policies are read and compiled for. */
export interface Mesh {
  readonly trustDomain: string;
  readonly meshConfig: MeshConfig;
  readonly workloads: readonly WorkloadDescription[];
}

export interface ReadPolicies {
  readonly policies: readonly Resource[];
  readonly issues: readonly Issue[];
  /** The place of a field of one of the policies. Reads its file's text again: not for every change. */
  readonly locate: ParsedResources["locate"];
}

/**
 * Reads policies from files. What a file says is remembered by its text: a save of one file among hundreds costs that file.
 */
export class PolicyReader {
  readonly #read = new Map<string, readonly FileRead[]>();

  /** Every resource of `files` (text by name), in their order, compiled for every workload it selects. */
  read(files: ReadonlyMap<string, string>, mesh: Mesh): ReadPolicies {
    const reads = [...files].map(([file, text]) => this.#readFile(file, text, mesh.meshConfig.rootNamespace));
    const issues = reads.flatMap((read) => read.issues);
    const origins = new Map<Resource, { readonly read: FileRead; readonly resource: Resource }>();
    for (const read of reads) {
      for (const resource of read.resources) {
        origins.set({ ...resource, order: origins.size }, { read, resource });
      }
    }
    const policies = withoutDuplicates([...origins.keys()], issues);
    const compiled = mesh.workloads.flatMap((workload) => compileIssues(policies, workload, mesh));
    const locate: ParsedResources["locate"] = (policy, path) => {
      const origin = origins.get(policy);
      return origin === undefined ? policy.place : origin.read.locate(origin.resource, path);
    };
    return { policies, issues: [...issues, ...compiled], locate };
  }

  /** Forgets files that are no more. */
  keepOnly(files: ReadonlySet<string>): void {
    for (const file of this.#read.keys()) {
      if (!files.has(file)) {
        this.#read.delete(file);
      }
    }
  }

  #readFile(file: string, text: string, rootNamespace: string): FileRead {
    const known = this.#read.get(file) ?? [];
    const same = known.find((read) => read.text === text);
    if (same !== undefined) {
      return same;
    }
    const read = { text, ...parseResources([{ file, text }], { rootNamespace }) };
    this.#read.set(file, [read, ...known].slice(0, TEXTS_KEPT));
    return read;
  }
}

interface FileRead extends ParsedResources {
  readonly text: string;
}

/** What is saved now, and what was good last. */
const TEXTS_KEPT = 2;

/** What is wrong for one workload alone: a resource may be well formed and still not compile. */
function compileIssues(policies: readonly Resource[], workload: WorkloadDescription, mesh: Mesh): Issue[] {
  const selected = selectResources(policies, workload, mesh.meshConfig);
  if (compileFault(selected, workload, mesh) === null) {
    return [];
  }
  return selected.flatMap((policy) => {
    const fault = compileFault([policy], workload, mesh);
    return fault === null ? [] : [asIssue(fault, policy, workload)];
  });
}

function compileFault(policies: readonly Resource[], workload: WorkloadDescription, mesh: Mesh): EveryhopError | null {
  try {
    const compiled = compile(policies, workload, mesh);
    // Each is compiled when first asked for: a fault must show here, and not in a sidecar.
    void [compiled.http, compiled.tcp];
    return null;
  } catch (error) {
    return toEveryhopError(error);
  }
}

function asIssue({ message, hint }: EveryhopError, policy: Resource, workload: WorkloadDescription): Issue {
  return {
    code: "policy-does-not-compile",
    severity: "error",
    message: `${policy.kind} \`${policyName(policy)}\` does not compile for \`${workload.name}\`: ${message}`,
    ...policy.place,
    ...(hint === undefined ? {} : { hint }),
  };
}

/** `namespace/name`. */
export function policyName({ namespace, name }: Resource): string {
  return `${namespace}/${name}`;
}

/**
 * The policies that decide on requests to `workload`, in deciding order, as JSON. Their positions among all others and in
 * their files are left out: a slice changes only with what is decided.
 */
export function policiesJson(
  policies: readonly Resource[],
  workload: WorkloadDescription,
  meshConfig: MeshConfig,
): readonly string[] {
  return selectResources(policies, workload, meshConfig).map((policy, order) =>
    resourceToJson({ ...policy, order, place: {} }),
  );
}

/** Reads meshConfig from plain data. Errors: `config-invalid` with every issue. */
export function readMeshConfig(value: unknown): { readonly json: string; readonly meshConfig: MeshConfig } {
  const json = JSON.stringify(value ?? {});
  try {
    return { json, meshConfig: parseMeshConfig(json) };
  } catch (error) {
    if (!(error instanceof EveryhopError)) {
      throw error;
    }
    // The text it was read from is ours: lines in it mean nothing to anyone.
    const issues = error.issues.map(({ line: _line, column: _column, path, ...issue }) => ({
      ...issue,
      path: path === undefined || path === "" ? "meshConfig" : `meshConfig.${path}`,
    }));
    throw configError(issues);
  }
}
