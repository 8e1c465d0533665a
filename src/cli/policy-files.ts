/** What the policy commands read: resources from files and folders, and the mesh's settings from flags. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { configError, EveryhopError } from "../core/base/errors.ts";
import { type Shape, validate } from "../core/base/validate.ts";
import { parseYaml } from "../core/base/yaml.ts";
import type { MeshScope } from "../core/policy/compile.ts";
import { DEFAULT_MESH_CONFIG, isPathNormalization, parseMeshConfig } from "../core/policy/mesh-config.ts";
import { PATH_NORMALIZATIONS } from "../core/policy/normalize.ts";
import type { SourceFile } from "../core/policy/parse.ts";
import type { WorkloadScope } from "../core/policy/select.ts";

const EXTENSIONS = /\.(ya?ml|json)$/;

/** Every resource file named by `paths`, folders walked in order of name. */
export function readPolicyFiles(paths: readonly string[]): SourceFile[] {
  return paths.flatMap((path) => findFiles(path, true)).map((file) => ({ file, text: readText(file) }));
}

function findFiles(path: string, named: boolean): string[] {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch {
    throw new EveryhopError("file-missing", `there is no file or folder \`${path}\``, { hint: "check the path" });
  }
  if (isFolder) {
    return readdirSync(path)
      .filter((name) => !name.startsWith("."))
      .sort()
      .flatMap((name) => findFiles(join(path, name), false));
  }
  return named || EXTENSIONS.test(path) ? [path] : [];
}

export function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(error as Error).message}`);
  }
}

export interface MeshFlags {
  readonly rootNamespace?: string;
  readonly trustDomain?: string;
  readonly pathNormalization?: string;
  readonly meshConfig?: string;
}

const DEFAULT_TRUST_DOMAIN = "cluster.local";

/** Flags win over the mesh config's file, which wins over Istio's defaults. */
export function readMesh(flags: MeshFlags): MeshScope {
  const { pathNormalization } = flags;
  if (pathNormalization !== undefined && !isPathNormalization(pathNormalization)) {
    throw new EveryhopError("usage", `unknown path normalization \`${pathNormalization}\``, {
      hint: `one of ${PATH_NORMALIZATIONS.join(", ")}`,
    });
  }
  const fromFile = flags.meshConfig === undefined ? DEFAULT_MESH_CONFIG : readMeshConfigFile(flags.meshConfig);
  const meshConfig = {
    ...fromFile,
    ...(flags.rootNamespace === undefined ? {} : { rootNamespace: flags.rootNamespace }),
    ...(pathNormalization === undefined ? {} : { pathNormalization }),
  };
  return { trustDomain: flags.trustDomain ?? meshConfig.trustDomain ?? DEFAULT_TRUST_DOMAIN, meshConfig };
}

/** The mesh config itself, or a document that holds it under `meshConfig`. */
function readMeshConfigFile(file: string) {
  const text = readText(file);
  const value = parseYaml(text, file).documents[0]?.value;
  const wrapped = typeof value === "object" && value !== null && "meshConfig" in value ? value.meshConfig : undefined;
  return wrapped === undefined ? parseMeshConfig(text, file) : parseMeshConfig(JSON.stringify(wrapped), file);
}

/** Namespace and labels of the services of an `everyhop.yaml`. */
export function readWorkloads(file: string): WorkloadScope[] {
  const { documents, issues } = parseYaml(readText(file), file);
  const document = documents[0];
  if (issues.length > 0 || document === undefined) {
    throw configError(
      issues.length > 0 ? issues : [{ code: "config-invalid", severity: "error", message: `\`${file}\` is empty` }],
    );
  }
  const { value } = validate(servicesShape, document);
  if (value === undefined) {
    throw configError(validate(servicesShape, document).issues);
  }
  return Object.entries(value).map(([name, { namespace, labels }]) => ({
    namespace: namespace ?? "default",
    labels: labels ?? { app: name },
  }));
}

/** Only what selectors look at; `everyhop up` reads the whole. */
const servicesShape: Shape<Readonly<Record<string, { namespace?: string; labels?: Record<string, string> }>>> = {
  read(value, at) {
    const services = typeof value === "object" && value !== null && "services" in value ? value.services : undefined;
    return typeof services === "object" && services !== null
      ? (services as Record<string, { namespace?: string; labels?: Record<string, string> }>)
      : at.fault("`services` is missing");
  },
};
