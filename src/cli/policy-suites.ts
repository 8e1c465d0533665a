/** The PolicyTests of the files named, each with the resources and the mesh it is about. */
import { existsSync, statSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { configError, EveryhopError, type Issue, type Place } from "../core/base/errors.ts";
import { parseYaml } from "../core/base/yaml.ts";
import type { MeshScope } from "../core/policy/compile.ts";
import { type ParsedResources, parseResources, type SourceFile } from "../core/policy/parse.ts";
import { type PolicyTest, parsePolicyTests } from "../core/policy/testing/policy-test.ts";
import type { Suite } from "../core/policy/testing/run.ts";
import { MESH_FILE_NAME } from "../run/up/mesh-file.ts";
import { findFiles, readText } from "./policy-files.ts";
import { type MeshFlags, readMesh } from "./policy-mesh.ts";

export interface SuiteFlags extends MeshFlags {
  readonly filter?: string;
}

/** Errors: `usage` where there is no test, `config-invalid` with every issue of tests and of the resources they need. */
export function readSuites(paths: readonly string[], flags: SuiteFlags): Suite[] {
  const files = readGiven(paths);
  const { tests, issues } = parsePolicyTests(files);
  const wanted = tests.map((test) => filtered(test, flags.filter)).filter(({ cases }) => cases.length > 0);
  if (tests.length === 0 && issues.length === 0) {
    // A test whose text is no YAML is not there either.
    throwErrors(parseResources(files).issues);
    throw new EveryhopError("usage", `no PolicyTest in ${paths.map((path) => `\`${path}\``).join(", ")}`, {
      hint: "a test is a YAML document of `kind: PolicyTest`; docs/policy-test.md shows one",
    });
  }
  if (wanted.length === 0 && issues.length === 0) {
    throw new EveryhopError("usage", `no test has \`${flags.filter}\` in its name`);
  }
  const reader = new SuiteReader(files, flags, meshFileOf(paths));
  const suites = reader.read(wanted);
  throwErrors([...issues, ...reader.issues]);
  return suites;
}

function throwErrors(issues: readonly Issue[]): void {
  const errors = issues.filter(({ severity }) => severity === "error");
  if (errors.length > 0) {
    throw configError(errors);
  }
}

/** Files that were not named themselves and hold nothing of ours (package.json, everyhop.yaml) are left out. */
function readGiven(paths: readonly string[]): SourceFile[] {
  const named = new Set(paths.map((path) => resolve(path)));
  const seen = new Set<string>();
  return paths
    .flatMap((path) => findFiles(path, true))
    .filter((file) => !seen.has(resolve(file)) && seen.add(resolve(file)))
    .map((file) => ({ file, text: readText(file) }))
    .filter(({ file, text }) => named.has(resolve(file)) || holdsResources(text));
}

function holdsResources(text: string): boolean {
  const { documents, issues } = parseYaml(text);
  const hasKind = ({ value }: { readonly value: unknown }): boolean =>
    typeof value === "object" && value !== null && "kind" in value;
  return issues.length > 0 || documents.some(hasKind);
}

function filtered(test: PolicyTest, filter: string | undefined): PolicyTest {
  return filter === undefined || test.name.includes(filter)
    ? test
    : { ...test, cases: test.cases.filter(({ name }) => name.includes(filter)) };
}

/** The `everyhop.yaml` of the first folder named that has one. */
function meshFileOf(paths: readonly string[]): string | null {
  const folder = paths.find((path) => statSync(path).isDirectory() && existsSync(join(path, MESH_FILE_NAME)));
  return folder === undefined ? null : join(folder, MESH_FILE_NAME);
}

const besideTest = ({ file }: Place, path: string): string =>
  isAbsolute(path) ? path : join(dirname(file ?? "."), path);

class SuiteReader {
  readonly #files: readonly SourceFile[];
  readonly #flags: MeshFlags;
  readonly #meshFile: string | null;
  readonly issues: Issue[] = [];

  constructor(files: readonly SourceFile[], flags: MeshFlags, meshFile: string | null) {
    this.#files = files;
    this.#flags = flags;
    this.#meshFile = meshFile;
  }

  /** Tests on the same resources in the same mesh are one suite: they are compiled once. */
  read(tests: readonly PolicyTest[]): Suite[] {
    const bySet = Map.groupBy(tests, (test) => JSON.stringify([this.#pathsOf(test), this.#meshOf(test)]));
    return [...bySet.values()].map((group): Suite => {
      const first = group[0]!;
      const mesh = this.#readMesh(first);
      const { resources, locate, issues } = this.#readResources(first, mesh);
      this.issues.push(...issues);
      if (resources.length === 0 && issues.length === 0) {
        this.issues.push(noPolicies(first));
      }
      return { tests: group, resources, mesh, locate };
    });
  }

  #pathsOf({ policies, place }: PolicyTest): readonly string[] | null {
    return policies?.map((path) => besideTest(place, path)) ?? null;
  }

  #meshOf({ mesh, place }: PolicyTest): string | null {
    return mesh === null ? this.#meshFile : besideTest(place, mesh);
  }

  #readMesh(test: PolicyTest): MeshScope {
    const mesh = this.#meshOf(test);
    return readMesh(mesh === null ? this.#flags : { mesh, ...this.#flags });
  }

  #readResources(test: PolicyTest, { meshConfig }: MeshScope): ParsedResources {
    const paths = this.#pathsOf(test);
    if (paths === null) {
      return parseResources(this.#files, meshConfig);
    }
    const missing = paths.filter((path) => !existsSync(path));
    if (missing.length > 0) {
      const message = `there is no file or folder \`${missing[0]}\``;
      const hint = "`policies` are relative to the test's own file";
      const issue: Issue = { code: "file-missing", severity: "error", message, ...test.place, path: "policies", hint };
      return { resources: [], issues: [issue], locate: (resource) => resource.place };
    }
    const files = paths.flatMap((path) => findFiles(path, true)).map((file) => ({ file, text: readText(file) }));
    return parseResources(files, meshConfig);
  }
}

function noPolicies(test: PolicyTest): Issue {
  return {
    code: "policy-test-invalid",
    severity: "error",
    message: `\`${test.name}\` has no resources to decide with`,
    ...test.place,
    hint: "name files or folders in `policies`, or on the command line beside the test",
  };
}
