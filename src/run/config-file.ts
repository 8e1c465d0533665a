/** A configuration file of a process, in our YAML or in SPIRE's HCL, as one document with places. */
import { readFileSync } from "node:fs";
import { dirname, extname, resolve } from "node:path";
import { configError, EveryhopError, type Issue } from "../core/base/errors.ts";
import { parseHcl } from "../core/base/hcl.ts";
import { parseYaml, type YamlDocument } from "../core/base/yaml.ts";
import { expandEnvironment } from "./spire/expand.ts";
import { type Rule, Translation } from "./spire/translation.ts";

export interface ConfigFile {
  /** In the words of our YAML, whichever it was written in. */
  readonly document: YamlDocument;
  /** Warnings: what is legal in SPIRE and different here. */
  readonly findings: readonly Issue[];
  /** What relative paths are relative to: the folder of our YAML; as in SPIRE, the current folder for its HCL. */
  readonly baseDir: string;
  /** Whether it is SPIRE's. */
  readonly spire: boolean;
}

export interface ConfigFileOptions {
  /** How SPIRE's file for this process is read. */
  readonly spire: Rule;
  /** Replaces `$NAME` and `${NAME}` by the environment's. SPEC: SPIRE's `-expandEnv`, which is off by default. */
  readonly expandEnv?: boolean | undefined;
  readonly hint: string;
}

/** Errors: `file-missing`; `config-invalid` with every issue, warnings among them. */
export function readConfigFile(file: string, options: ConfigFileOptions): ConfigFile {
  const written = readText(file, options.hint);
  const text = options.expandEnv === true ? expandEnvironment(written, process.env) : written;
  const hcl = isHcl(file, text);
  const { documents, issues } = hcl ? parseHcl(text, file) : parseYaml(text, file);
  const found: Issue[] = [...issues];
  const [document, more] = documents;
  if (more !== undefined) {
    found.push({ code: "config-invalid", severity: "error", message: "one document is expected", ...more.place([]) });
  }
  if (document === undefined && found.length === 0) {
    found.push({ code: "config-invalid", severity: "error", message: "the file is empty", file });
  }
  if (document === undefined || found.length > 0) {
    throw configError(found);
  }
  if (!hcl && !isSpireJson(document.value)) {
    return { document, findings: [], baseDir: dirname(resolve(file)), spire: false };
  }
  const translation = new Translation(document);
  options.spire(document.value, translation.root);
  if (translation.issues.some(({ severity }) => severity === "error")) {
    throw configError(translation.issues);
  }
  return { document: translation.document(), findings: translation.issues, baseDir: process.cwd(), spire: true };
}

/** By its name, or by a block of SPIRE's at the beginning of a line, which is no YAML. */
function isHcl(file: string, text: string): boolean {
  return /^\.(conf|hcl)$/i.test(extname(file)) || /^\s*(server|agent|plugins)\s*\{/m.test(text.replace(/#.*/g, ""));
}

/** HCL has a form in JSON, which YAML reads too: its blocks tell it. */
function isSpireJson(value: unknown): boolean {
  const { server, agent } = (value ?? {}) as Record<string, unknown>;
  const isBlock = (one: unknown): boolean =>
    Array.isArray(one) ? one.length > 0 && one.every(isBlock) : typeof one === "object" && one !== null;
  return isBlock(server) || isBlock(agent);
}

function readText(file: string, hint: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(error as Error).message}`, {
      hint,
      cause: error,
    });
  }
}
