/** What can be found wrong with the Kubernetes manifests that deploy a server, beside its configuration. */
import { readFileSync } from "node:fs";
import { EveryhopError, type Issue } from "../core/base/errors.ts";
import { parseHcl } from "../core/base/hcl.ts";
import { type Path, parseYaml, type YamlDocument } from "../core/base/yaml.ts";

type Mapping = Readonly<Record<string, unknown>>;

/** Where the server keeps what it registers; `unknown` where its configuration was not given. */
export type Keeping = "sqlite" | "postgres" | "unknown";

const asMapping = (value: unknown): Mapping =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Mapping) : {};
const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

function at(value: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>((from, key) => asMapping(from)[key], value);
}

/** What configuration files say of the database; what is wrong with them is said where they are checked. */
export function keepingOf(files: readonly string[]): Keeping {
  const found = files.map((file) => databaseOf(readFileSync(file, "utf8"))).find((kind) => kind !== null);
  return found ?? "unknown";
}

/** The documents of a file whose every document is a Kubernetes object; null where it is something else. */
export function readManifest(file: string): readonly YamlDocument[] | null {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, { cause });
  }
  const { documents, issues } = parseYaml(text, file);
  const isObject = ({ value }: YamlDocument) =>
    typeof at(value, "apiVersion") === "string" && typeof at(value, "kind") === "string";
  return issues.length === 0 && documents.length > 0 && documents.every(isObject) ? documents : null;
}

/** Findings on what deploys a server: `keeping` is what the configurations beside the manifests say. */
export function manifestIssues(documents: readonly YamlDocument[], keeping: Keeping): readonly Issue[] {
  const known = keeping === "unknown" ? keepingBeside(documents) : keeping;
  return documents.flatMap((document) => replicaIssues(document, known));
}

/** By the configuration in a ConfigMap beside the workload. */
function keepingBeside(documents: readonly YamlDocument[]): Keeping {
  for (const { value } of documents.filter((document) => at(document.value, "kind") === "ConfigMap")) {
    for (const text of Object.values(asMapping(at(value, "data")))) {
      const kind = typeof text === "string" ? databaseOf(text) : null;
      if (kind !== null) {
        return kind;
      }
    }
  }
  return "unknown";
}

/** Of SPIRE's HCL, or of our YAML; null where the text is neither. */
function databaseOf(text: string): Keeping | null {
  const hcl = parseHcl(text).documents[0]?.value;
  const type = [hcl, at(hcl, "server")]
    .map((from) => at(from, "plugins", "DataStore", "sql", "plugin_data", "database_type"))
    .find((found) => found !== undefined);
  if (type !== undefined) {
    return type === "postgres" ? "postgres" : "sqlite";
  }
  const own = parseYaml(text).documents[0]?.value;
  if (at(own, "trustDomain") === undefined || at(own, "dataDir") === undefined) {
    return null;
  }
  return at(own, "dataStore", "kind") === "postgres" ? "postgres" : "sqlite";
}

const WORKLOADS = ["StatefulSet", "Deployment", "ReplicaSet"];

function replicaIssues(document: YamlDocument, keeping: Keeping): readonly Issue[] {
  const { value } = document;
  const replicas = at(value, "spec", "replicas");
  if (
    !WORKLOADS.includes(String(at(value, "kind"))) ||
    !isServer(value) ||
    typeof replicas !== "number" ||
    replicas < 2
  ) {
    return [];
  }
  const claimed = asList(at(value, "spec", "volumeClaimTemplates")).length > 0;
  if (keeping === "postgres" || (keeping === "unknown" && !claimed)) {
    return [];
  }
  const volumes = claimed ? ", each on a volume of its own" : "";
  const certain = keeping === "sqlite" ? "" : " (SQLite is what SPIRE's examples use; its configuration was not given)";
  return [
    issue(
      document,
      ["spec", "replicas"],
      `${replicas} replicas with a SQLite database each${volumes} are ${replicas} unrelated authorities: an agent that attested to one is unknown to the others, and an entry made on one gives nothing on the others${certain}`,
      'run one replica, or give all of them one PostgreSQL: `DataStore "sql" { plugin_data { database_type = "postgres" … } }`, `dataStore: {kind: postgres, connection: …}` in our own file',
    ),
  ];
}

/** A container of a SPIRE server, or of ours. */
function isServer(value: unknown): boolean {
  return asList(at(value, "spec", "template", "spec", "containers")).some((container) => {
    const words = [...asList(at(container, "command")), ...asList(at(container, "args"))];
    const image = String(at(container, "image") ?? "");
    return /(^|[/-])spire-server([:@]|$)/.test(image) || (/everyhop/.test(image) && words.includes("server"));
  });
}

function issue(document: YamlDocument, path: Path, message: string, hint: string): Issue {
  return { code: "replicas-unrelated", severity: "warning", message, hint, ...document.place(path) };
}
