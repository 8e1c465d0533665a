/** Istio's security resources from YAML: parsed once, here, as strictly as Istio's admission and then some. */
import { configError, type Issue, type Place } from "../base/errors.ts";
import { suggest } from "../base/suggest.ts";
import { type Shape, validate } from "../base/validate.ts";
import { formatPath, type Path, parseYaml, type YamlDocument } from "../base/yaml.ts";
import { type Envelope, type Report, reportOn, resourceShape } from "./admission.ts";
import { authorizationSpec, readAuthorizationPolicy } from "./parse-authorization.ts";
import { jwtSpec, readRequestAuthentication } from "./parse-jwt.ts";
import { peerSpec, readPeerAuthentication } from "./parse-peer.ts";
import { type Resource, type ResourceKind, resourceKey } from "./resources.ts";

export interface SourceFile {
  readonly file: string;
  readonly text: string;
}

export interface ParseOptions {
  readonly rootNamespace?: string;
  /** Position of the first resource, where several sets are parsed one after the other. */
  readonly firstOrder?: number;
}

export interface ParsedResources {
  /** Those without an error. */
  readonly resources: readonly Resource[];
  /** Errors, and findings about what is legal but not what it seems. */
  readonly issues: readonly Issue[];
  /** The place of a field of one of the resources. */
  readonly locate: (resource: Resource, path: Path) => Place;
}

const API_VERSIONS = ["security.istio.io/v1", "security.istio.io/v1beta1"];
const DEFAULT_NAMESPACE = "default";

/** Parses every document of every file. Documents of `kind: PolicyTest` are left out: `policy test` reads them. */
export function parseResources(files: readonly SourceFile[], options: ParseOptions = {}): ParsedResources {
  const resources: Resource[] = [];
  const issues: Issue[] = [];
  const origins = new Map<Resource, Origin>();
  let order = options.firstOrder ?? 0;
  for (const { file, text } of files) {
    const parsed = parseYaml(text, file);
    issues.push(...parsed.issues);
    for (const document of parsed.documents) {
      const resource = parseDocument(document, order++, issues);
      if (resource !== null) {
        resources.push(resource);
        origins.set(resource, { file, text, index: document.index });
      }
    }
  }
  return { resources: withoutDuplicates(resources, issues), issues, locate: locator(origins) };
}

interface Origin extends SourceFile {
  /** Position of the document in the file. */
  readonly index: number;
}

/** Reads a file again to find a field in it: nobody has to hold on to parsed documents. */
function locator(origins: ReadonlyMap<Resource, Origin>): ParsedResources["locate"] {
  let last: { readonly text: string; readonly documents: readonly YamlDocument[] } | null = null;
  return (resource, path) => {
    const origin = origins.get(resource);
    if (origin !== undefined && last?.text !== origin.text) {
      last = { text: origin.text, documents: parseYaml(origin.text, origin.file).documents };
    }
    const document = last?.documents.find(({ index }) => index === origin?.index);
    return origin === undefined || document === undefined
      ? { ...resource.place, path: formatPath(path) }
      : document.place(path);
  };
}

/** One document as a resource; null where it is none, or where `issues` now says what is wrong. */
function parseDocument(document: YamlDocument, order: number, issues: Issue[]): Resource | null {
  const { value } = document;
  const report = reportOn(document, issues);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    report.fault([], "expected a resource: a mapping with `apiVersion`, `kind`, `metadata` and `spec`");
    return null;
  }
  const { kind, apiVersion } = value as Record<string, unknown>;
  if (kind === "PolicyTest") {
    return null;
  }
  const reader = typeof kind === "string" ? READERS[kind as ResourceKind] : undefined;
  if (reader === undefined) {
    const near = typeof kind === "string" ? suggest(kind, [...Object.keys(READERS), "PolicyTest"]) : null;
    report.fault(
      ["kind"],
      kind === undefined ? "`kind` is missing" : `unknown kind \`${String(kind)}\``,
      near === null ? `known are: ${Object.keys(READERS).join(", ")}` : `did you mean \`${near}\`?`,
    );
    return null;
  }
  if (typeof apiVersion !== "string" || !API_VERSIONS.includes(apiVersion)) {
    report.fault(["apiVersion"], `unknown apiVersion \`${String(apiVersion)}\``, `write \`${API_VERSIONS[0]}\``);
    return null;
  }
  return reader(document, order, issues);
}

type Read = (document: YamlDocument, order: number, issues: Issue[]) => Resource | null;

const READERS: Readonly<Record<ResourceKind, Read>> = {
  AuthorizationPolicy: reader(authorizationSpec, readAuthorizationPolicy),
  PeerAuthentication: reader(peerSpec, readPeerAuthentication),
  RequestAuthentication: reader(jwtSpec, readRequestAuthentication),
};

const DRY_RUN = "istio.io/dry-run";

/** Shape first, then what no shape can say. */
function reader<T>(spec: Shape<T>, read: (spec: Partial<T>, envelope: Envelope, report: Report) => Resource): Read {
  const shape = resourceShape(spec);
  return (document, order, issues) => {
    const { value, issues: faults } = validate(shape, document, "resource-invalid");
    if (value === undefined) {
      issues.push(...faults);
      return null;
    }
    const before = issues.filter((issue) => issue.severity === "error").length;
    const report = reportOn(document, issues);
    noteWhatIsLost(document.value, report);
    const annotations = value.metadata.annotations ?? {};
    if (value.kind !== "AuthorizationPolicy" && Object.hasOwn(annotations, DRY_RUN)) {
      report.fault(["metadata", "annotations", DRY_RUN], `only an AuthorizationPolicy can be a dry run`);
    }
    const resource = read(
      (value.spec ?? {}) as Partial<T>,
      {
        name: value.metadata.name,
        namespace: value.metadata.namespace || DEFAULT_NAMESPACE,
        createdMs: value.metadata.creationTimestamp ?? null,
        order,
        place: document.place([]),
        annotations,
      },
      report,
    );
    return issues.filter((issue) => issue.severity === "error").length > before ? null : resource;
  };
}

/** What Protobuf's JSON reads as something else than it seems. */
function noteWhatIsLost(value: unknown, report: Report): void {
  const { spec } = value as { spec?: { action?: unknown; rules?: unknown } | null };
  if (typeof spec?.action === "number") {
    report.finding("action-by-number", "warning", ["spec", "action"], "an action by number; write its name");
  }
  for (const [index, rule] of (Array.isArray(spec?.rules) ? (spec.rules as unknown[]) : []).entries()) {
    if (rule === null) {
      report.finding(
        "null-rule",
        "warning",
        ["spec", "rules", index],
        "a null rule is the rule `{}`: it matches everything",
      );
    }
  }
}

/** The first of each name; every other one is an issue. For sets that were parsed apart and are to be in force together. */
export function withoutDuplicates(resources: readonly Resource[], issues: Issue[]): readonly Resource[] {
  const first = new Map<string, Resource>();
  for (const resource of resources) {
    const key = resourceKey(resource);
    const earlier = first.get(key);
    if (earlier === undefined) {
      first.set(key, resource);
      continue;
    }
    const where = [earlier.place.file, earlier.place.line].filter((part) => part !== undefined).join(":");
    issues.push({
      code: "resource-duplicate",
      severity: "error",
      message: `${resource.kind} \`${resource.namespace}/${resource.name}\` is there twice, first at ${where}`,
      ...resource.place,
      hint: "rename or remove one of them",
    });
  }
  return [...first.values()];
}

/** A resource as JSON text that `parseResourceJson` reads back unchanged: how resources travel in snapshots. */
export function resourceToJson(resource: Resource): string {
  return JSON.stringify({ order: resource.order, place: resource.place, resource: resourceDocument(resource) });
}

/** Reads what `resourceToJson` wrote; throws a configuration error where it is not valid. */
export function parseResourceJson(json: string): Resource {
  const issues: Issue[] = [];
  let wrapper: { order?: unknown; place?: unknown; resource?: unknown };
  try {
    wrapper = JSON.parse(json) as typeof wrapper;
  } catch (error) {
    throw configError([{ code: "resource-invalid", severity: "error", message: (error as Error).message }]);
  }
  const place = (wrapper?.place ?? {}) as Resource["place"];
  const document = plainDocument(wrapper?.resource, place);
  const resource = parseDocument(document, typeof wrapper?.order === "number" ? wrapper.order : 0, issues);
  if (resource === null) {
    throw configError(
      issues.length > 0 ? issues : [{ code: "resource-invalid", severity: "error", message: "not a resource" }],
    );
  }
  return { ...resource, place };
}

/** A value as a document all of whose parts are at one place. */
function plainDocument(value: unknown, place: Resource["place"]): YamlDocument {
  const at = (path: Path) => ({ ...place, path: formatPath(path) });
  return { file: place.file, index: 0, value, place: at, keyPlace: at };
}

/** The resource as Istio writes it: what RFC 6902 patches and JSON pointers mean. */
export function resourceDocument(resource: Resource): Record<string, unknown> {
  const metadata = {
    name: resource.name,
    namespace: resource.namespace,
    ...(resource.createdMs === null ? {} : { creationTimestamp: new Date(resource.createdMs).toISOString() }),
    ...(resource.kind === "AuthorizationPolicy" && resource.dryRun ? { annotations: { [DRY_RUN]: "true" } } : {}),
  };
  const targets = {
    ...(resource.selector === null ? {} : { selector: { matchLabels: resource.selector } }),
    ...(resource.targetRefs.length === 0 ? {} : { targetRefs: resource.targetRefs }),
  };
  return {
    apiVersion: API_VERSIONS[0],
    kind: resource.kind,
    metadata,
    spec: { ...targets, ...specOf(resource) },
  };
}

function specOf(resource: Resource): Record<string, unknown> {
  switch (resource.kind) {
    case "AuthorizationPolicy":
      return {
        action: resource.action,
        ...(resource.provider === null ? {} : { provider: { name: resource.provider } }),
        ...(resource.rules.length === 0 ? {} : { rules: resource.rules.map(ruleDocument) }),
      };
    case "PeerAuthentication": {
      const ports = Object.entries(resource.portLevelMtls);
      return {
        mtls: { mode: resource.mode },
        ...(ports.length === 0
          ? {}
          : { portLevelMtls: Object.fromEntries(ports.map(([port, mode]) => [port, { mode }])) }),
      };
    }
    case "RequestAuthentication":
      return {
        jwtRules: resource.jwtRules.map(({ timeoutMs, jwksUri, jwks, outputPayloadToHeader, issuer, ...rule }) => ({
          ...rule,
          ...(issuer === "" ? {} : { issuer }),
          timeout: `${timeoutMs}ms`,
          ...(jwksUri === null ? {} : { jwksUri }),
          ...(jwks === null ? {} : { jwks }),
          ...(outputPayloadToHeader === null ? {} : { outputPayloadToHeader }),
        })),
      };
  }
}

type RuleOf = Extract<Resource, { kind: "AuthorizationPolicy" }>["rules"][number];

function ruleDocument(rule: RuleOf): Record<string, unknown> {
  return {
    ...(rule.from.length === 0 ? {} : { from: rule.from.map((source) => ({ source })) }),
    ...(rule.to.length === 0 ? {} : { to: rule.to.map((operation) => ({ operation })) }),
    ...(rule.when.length === 0
      ? {}
      : {
          when: rule.when.map(({ key, values, notValues }) => ({
            key,
            ...(values.length === 0 ? {} : { values }),
            ...(notValues.length === 0 ? {} : { notValues }),
          })),
        }),
  };
}
