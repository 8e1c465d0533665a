/** What the parsers of the three kinds share: metadata, selectors, targets, and a place to report to. */
import type { Issue, Severity } from "../base/errors.ts";
import { anything, list, object, optional, record, refined, required, type Shape, string } from "../base/validate.ts";
import type { Path, YamlDocument } from "../base/yaml.ts";
import type { Resource, TargetRef } from "./resources.ts";

/** Collects what is wrong with, or worth saying about, one document. */
export interface Report {
  fault(path: Path, message: string, hint?: string): void;
  finding(code: string, severity: Exclude<Severity, "error">, path: Path, message: string, hint?: string): void;
}

export function reportOn(document: YamlDocument, issues: Issue[]): Report {
  const add = (code: string, severity: Severity, path: Path, message: string, hint?: string): void => {
    issues.push({ code, severity, message, ...document.place(path), ...(hint === undefined ? {} : { hint }) });
  };
  return {
    fault: (path, message, hint) => add("resource-invalid", "error", path, message, hint),
    finding: (code, severity, path, message, hint) => add(code, severity, path, message, hint),
  };
}

/** What a document needs around its spec to become a resource. */
export interface Envelope {
  readonly name: string;
  readonly namespace: string;
  readonly createdMs: number | null;
  readonly order: number;
  readonly place: Resource["place"];
  readonly annotations: Readonly<Record<string, string>>;
}

export const text = string();

/** A list in which null stands for an empty mapping, as Protobuf's JSON reads it. */
export function messages<T>(item: Shape<T>): Shape<readonly T[]> {
  return list({ read: (value, at) => item.read(value === null ? {} : value, at) });
}

/** One of these words, or its Protobuf number. */
export function word<const T extends string>(...words: readonly T[]): Shape<T> {
  return {
    read(value, at) {
      const named = typeof value === "number" ? words[value] : value;
      if (typeof named === "string" && (words as readonly string[]).includes(named)) {
        return named as T;
      }
      const folded = typeof value === "string" ? words.find((known) => known === value.toUpperCase()) : undefined;
      return at.fault(
        `expected one of ${words.join(", ")}, found \`${String(value)}\``,
        folded === undefined ? undefined : `write it as \`${folded}\``,
      );
    },
  };
}

const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

const metadata = object({
  name: required(refined(text, (name, at) => (name === "" ? at.fault("the name is empty") : name))),
  namespace: optional(text),
  creationTimestamp: optional(
    refined(text, (value, at) => {
      const ms = RFC_3339.test(value) ? Date.parse(value) : Number.NaN;
      return Number.isNaN(ms) ? at.fault(`\`${value}\` is not a time`, "write it as 2026-01-31T12:00:00Z") : ms;
    }),
  ),
  annotations: optional(record(text)),
  labels: optional(record(text)),
  deletionGracePeriodSeconds: optional(anything()),
  deletionTimestamp: optional(anything()),
  finalizers: optional(anything()),
  generateName: optional(anything()),
  generation: optional(anything()),
  managedFields: optional(anything()),
  ownerReferences: optional(anything()),
  resourceVersion: optional(anything()),
  selfLink: optional(anything()),
  uid: optional(anything()),
});

/** The document around a spec. A missing spec is an empty one. */
export function resourceShape<T>(spec: Shape<T>) {
  return object({
    apiVersion: required(text),
    kind: required(text),
    metadata: required(metadata),
    spec: optional(spec),
    status: optional(anything()),
  });
}

const label = refined(text, (value, at) => {
  if (value.includes("*")) {
    return at.fault(`\`${value}\` has a wildcard`, "selectors compare labels exactly");
  }
  return value.length > 63 ? at.fault("a label value has at most 63 characters") : value;
});

export const selectorShape = object({
  matchLabels: optional(
    refined(record(label), (labels, at) => {
      for (const key of Object.keys(labels)) {
        if (key === "") {
          return at.fault("a label has an empty name");
        }
        if (key.includes("*")) {
          return at.keyFault(key, `\`${key}\` has a wildcard`, "selectors compare labels exactly");
        }
      }
      return labels;
    }),
  ),
});

const TARGET_KINDS: readonly string[] = [
  "core/Service",
  "networking.istio.io/ServiceEntry",
  "gateway.networking.k8s.io/Gateway",
  "gateway.networking.k8s.io/GatewayClass",
];
const GROUP = /^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const KIND = /^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$/;

const sameNamespace = refined(text, (namespace, at) =>
  namespace === ""
    ? namespace
    : at.fault("a target in another namespace is not supported", "leave `namespace` out; it is the policy's own"),
);

export const targetRefShape: Shape<TargetRef> = refined(
  object({
    group: optional(string({ pattern: GROUP, what: "an API group" })),
    kind: required(string({ pattern: KIND, what: "a kind" })),
    name: required(refined(text, (name, at) => (name === "" ? at.fault("the name of the target is empty") : name))),
    namespace: optional(sameNamespace),
  }),
  (given, at) => {
    const group = given.group ?? "";
    if (given.kind === undefined || TARGET_KINDS.includes(`${group === "" ? "core" : group}/${given.kind}`)) {
      return { group, kind: given.kind, name: given.name };
    }
    return at
      .into("kind")
      .fault(
        `\`${given.kind}\` of group \`${group}\` cannot be a target`,
        "known are Service, ServiceEntry, Gateway, GatewayClass",
      );
  },
);

export const targetFields = {
  selector: optional(selectorShape),
  targetRef: optional(targetRefShape),
  targetRefs: optional(
    refined(list(targetRefShape), (refs, at) => (refs.length > 16 ? at.fault("at most 16 targets") : refs)),
  ),
} as const;

interface Targets {
  readonly selector?: { readonly matchLabels?: Readonly<Record<string, string>> };
  readonly targetRef?: TargetRef;
  readonly targetRefs?: readonly TargetRef[];
}

/** A spec of which at most one of the three ways to choose workloads is used. */
export function targeted<T extends object>(spec: Shape<T>): Shape<T> {
  return refined(spec, (given, at) => {
    const forms = ["selector", "targetRef", "targetRefs"].filter((form) => Object.hasOwn(given, form));
    return forms.length > 1
      ? at.fault(`only one of ${forms.map((form) => `\`${form}\``).join(", ")} can be set`)
      : given;
  });
}

/** Selector and targets of a spec. */
export function readTargets(spec: Targets, report: Report) {
  if (spec.selector !== undefined && Object.keys(spec.selector.matchLabels ?? {}).length === 0) {
    report.finding(
      "selector-without-labels",
      "warning",
      ["spec", "selector"],
      "the selector has no labels and selects every workload of the namespace",
    );
  }
  return {
    selector: spec.selector === undefined ? null : (spec.selector.matchLabels ?? {}),
    targetRefs: spec.targetRefs?.length ? spec.targetRefs : spec.targetRef === undefined ? [] : [spec.targetRef],
  };
}
