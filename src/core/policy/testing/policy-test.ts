/** `kind: PolicyTest`: requests with the decisions they should get, read as strictly as policies are. */
import type { Issue, Place } from "../../base/errors.ts";
import {
  anything,
  integer,
  list,
  object,
  oneOf,
  optional,
  record,
  refined,
  required,
  type Shape,
  string,
  validate,
} from "../../base/validate.ts";
import { type Path, parseYaml, type YamlDocument } from "../../base/yaml.ts";
import { type DecisionRequest, readDecisionRequest } from "../decision-request.ts";
import type { SourceFile } from "../parse.ts";
import type { Reason } from "../verdict.ts";

export interface PolicyTest {
  readonly name: string;
  /** As in messages: `payments`, or with its namespace where it names one. */
  readonly place: Place;
  /** Files and folders, relative to the test's own file; null: what the command was given. */
  readonly policies: readonly string[] | null;
  /** An `everyhop.yaml`, relative to the test's own file, whose trust domain and meshConfig hold. */
  readonly mesh: string | null;
  readonly cases: readonly TestCase[];
}

export interface TestCase {
  readonly name: string;
  readonly place: Place;
  readonly request: DecisionRequest;
  readonly expect: Expectation;
}

type Decision = "allow" | "deny";

/** What is not there is not compared. `null` expects that there is none. */
export interface Expectation {
  readonly decision?: Decision;
  readonly status?: number;
  readonly reason?: Reason;
  readonly policy?: string | null;
  readonly rule?: number | null;
  readonly path?: string;
  readonly audit?: readonly string[];
  readonly dryRun?: { readonly decision?: Decision; readonly policy?: string | null };
}

export const TEST_API_VERSION = "everyhop.dev/v1";

const REASONS = [
  "no-policy",
  "allow-rule",
  "no-allow-matched",
  "deny-rule",
  "custom-denied",
  "plaintext-refused",
  "bad-token",
  "bad-request",
  "killed",
] as const satisfies readonly Reason[];

/** A field whose `null` means something: `object` takes null for "not given". */
function nullable<T>(shape: Shape<T>): { readonly shape: Shape<T | null>; readonly required: false } {
  return { shape: { read: (value, at) => (value === null ? null : shape.read(value, at)) }, required: false };
}

const decision = oneOf("allow", "deny");
const policyName = string({ pattern: /^[^/\s]+\/[^/\s]+$/, what: "a policy, written `namespace/name`" });

const dryRunExpectation = textOr(
  decision,
  object({ decision: optional(decision), policy: nullable(policyName) }),
  (word) => ({ decision: word }),
);

const expectation = textOr(
  decision,
  object({
    decision: optional(decision),
    status: optional(integer(-1, 599)),
    reason: optional(oneOf(...REASONS)),
    policy: nullable(policyName),
    rule: nullable(integer(0)),
    path: optional(string()),
    audit: optional(list(string())),
    dryRun: optional(dryRunExpectation),
  }),
  (word) => ({ decision: word }),
);

/** One word, or a mapping with more. A null of the mapping is kept where its field is nullable. */
function textOr<W extends string, T extends object>(
  word: Shape<W>,
  mapping: Shape<T>,
  short: (word: W) => T,
): Shape<T> {
  return {
    read(value, at) {
      if (typeof value !== "object" || value === null) {
        const read = word.read(value, at);
        return read === undefined ? undefined : short(read);
      }
      const read = mapping.read(value, at);
      if (read === undefined) {
        return undefined;
      }
      if (Object.keys(value).length === 0) {
        return at.fault("nothing is expected", "write `allow` or `deny`, or name a field");
      }
      const nulls = Object.entries(value).filter(
        ([key, each]) => each === null && (key === "policy" || key === "rule"),
      );
      return { ...read, ...Object.fromEntries(nulls) };
    },
  };
}

const principal = refined(string(), (value, at) =>
  value.startsWith("spiffe://")
    ? at.fault("a principal is written without `spiffe://`", `write \`${value.slice("spiffe://".length)}\``)
    : value,
);

const lines: Shape<unknown> = {
  read: (value, at) =>
    typeof value === "string" || (Array.isArray(value) && value.every((line) => typeof line === "string"))
      ? value
      : at.fault("expected text or a list of texts", "put numbers and true or false in quotes"),
};

const requestFields = {
  id: optional(anything()),
  source: optional(object({ principal: optional(principal), ip: optional(string()), remoteIp: optional(string()) })),
  destination: optional(
    object({
      namespace: optional(string()),
      name: optional(string()),
      labels: optional(record(string())),
      serviceAccount: optional(string()),
      ip: optional(string()),
      port: optional(integer(0, 65_535)),
      sni: optional(string()),
    }),
  ),
  request: optional(
    object({
      method: optional(string()),
      path: optional(string()),
      host: optional(string()),
      version: optional(anything()),
      headers: optional(record(lines)),
      auth: optional(
        object({
          issuer: optional(string()),
          subject: optional(string()),
          audiences: optional(lines),
          presenter: optional(string()),
          claims: optional(record(anything())),
        }),
      ),
      token: optional(string()),
    }),
  ),
};

/** Checked here for its places; `readDecisionRequest` then reads it as `policy decide` does. */
const request: Shape<unknown> = {
  read: (value, at) => (object(requestFields).read(value, at) === undefined ? undefined : value),
};

const testCase = object({
  name: optional(string()),
  request: required(request),
  expect: required(expectation),
});

const document = object({
  apiVersion: required(oneOf(TEST_API_VERSION)),
  kind: required(oneOf("PolicyTest")),
  metadata: required(
    object({
      name: required(string({ pattern: /\S/, what: "a name" })),
      namespace: optional(string()),
      labels: optional(record(string())),
      annotations: optional(record(string())),
    }),
  ),
  policies: optional(list(string(), { min: 1 })),
  mesh: optional(string()),
  tests: required(list(testCase, { min: 1 })),
});

export interface ParsedPolicyTests {
  readonly tests: readonly PolicyTest[];
  readonly issues: readonly Issue[];
}

/** Reads every PolicyTest of `files`; other documents are left to `parseResources`, and so is text that is no YAML. */
export function parsePolicyTests(files: readonly SourceFile[]): ParsedPolicyTests {
  const tests: PolicyTest[] = [];
  const issues: Issue[] = [];
  for (const { file, text } of files) {
    for (const each of parseYaml(text, file).documents) {
      if (isPolicyTest(each.value)) {
        const read = validate(document, each, "policy-test-invalid");
        issues.push(...read.issues);
        if (read.value !== undefined) {
          tests.push(policyTest(read.value, each));
        }
      }
    }
  }
  return { tests, issues };
}

const isPolicyTest = (value: unknown): boolean =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "PolicyTest";

type Given = NonNullable<ReturnType<typeof document.read>>;

function policyTest(given: Given, { place }: YamlDocument): PolicyTest {
  const at = (path: Path): Place => place(path);
  return {
    name: given.metadata.name,
    place: at([]),
    policies: given.policies ?? null,
    mesh: given.mesh ?? null,
    cases: given.tests.map((each, index) => ({
      name: each.name ?? `test ${index + 1}`,
      place: at(["tests", index]),
      request: readDecisionRequest(each.request),
      expect: each.expect as Expectation,
    })),
  };
}
