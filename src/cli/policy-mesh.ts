/** The mesh that the policy commands decide for: from flags, a meshConfig and an `everyhop.yaml`. */
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { parseYaml } from "../core/base/yaml.ts";
import type { MeshScope } from "../core/policy/compile.ts";
import type { MeshWorkload } from "../core/policy/lint/finding.ts";
import {
  DEFAULT_MESH_CONFIG,
  isPathNormalization,
  type MeshConfig,
  parseMeshConfig,
} from "../core/policy/mesh-config.ts";
import { PATH_NORMALIZATIONS } from "../core/policy/normalize.ts";
import { type MeshFile, parseMeshFile } from "../run/up/mesh-file.ts";
import { readText } from "./policy-files.ts";

export interface MeshFlags {
  readonly rootNamespace?: string;
  readonly trustDomain?: string;
  readonly pathNormalization?: string;
  readonly meshConfig?: string;
  /** An `everyhop.yaml`. */
  readonly mesh?: string;
}

const DEFAULT_TRUST_DOMAIN = "cluster.local";

export function meshOptions(command: Command): Command {
  return command
    .option("--mesh <file>", "an everyhop.yaml: its trust domain, meshConfig and services")
    .option("--mesh-config <file>", "meshConfig under Istio's names")
    .option("--trust-domain <domain>", "the mesh's trust domain (cluster.local)")
    .option("--root-namespace <namespace>", "where mesh-wide policy lives (istio-system)")
    .option("--path-normalization <mode>", "NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES");
}

/** Flags win over the mesh config's file, which wins over `everyhop.yaml`, which wins over Istio's defaults. */
export function readMesh(flags: MeshFlags): MeshScope {
  const { pathNormalization } = flags;
  if (pathNormalization !== undefined && !isPathNormalization(pathNormalization)) {
    throw new EveryhopError("usage", `unknown path normalization \`${pathNormalization}\``, {
      hint: `one of ${PATH_NORMALIZATIONS.join(", ")}`,
    });
  }
  const meshFile = flags.mesh === undefined ? null : readMeshDocument(flags.mesh);
  const fromFile =
    flags.meshConfig !== undefined
      ? readMeshConfigFile(flags.meshConfig)
      : meshFile === null
        ? DEFAULT_MESH_CONFIG
        : parseMeshConfig(JSON.stringify(meshFile.meshConfig), meshFile.file);
  const meshConfig: MeshConfig = {
    ...fromFile,
    ...(flags.rootNamespace === undefined ? {} : { rootNamespace: flags.rootNamespace }),
    ...(pathNormalization === undefined ? {} : { pathNormalization }),
  };
  const trustDomain = flags.trustDomain ?? meshFile?.trustDomain ?? meshConfig.trustDomain ?? DEFAULT_TRUST_DOMAIN;
  return { trustDomain, meshConfig };
}

/** The mesh config itself, or a document that holds it under `meshConfig`. */
function readMeshConfigFile(file: string): MeshConfig {
  const text = readText(file);
  const value = parseYaml(text, file).documents[0]?.value;
  const wrapped = typeof value === "object" && value !== null && "meshConfig" in value ? value.meshConfig : undefined;
  return wrapped === undefined ? parseMeshConfig(text, file) : parseMeshConfig(JSON.stringify(wrapped), file);
}

const readMeshDocument = (file: string): MeshFile => parseMeshFile(readText(file), file, resolve(dirname(file)));

/** The services of an `everyhop.yaml`, as lints know workloads. */
export function readWorkloads(file: string): MeshWorkload[] {
  const { trustDomain, services } = readMeshDocument(file);
  return services.map(({ name, namespace, serviceAccount, labels, port, protocol }) => ({
    name,
    namespace,
    labels,
    port,
    protocol,
    principal: `${trustDomain}/ns/${namespace}/sa/${serviceAccount}`,
  }));
}
