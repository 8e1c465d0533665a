/**
 * SPEC: AuthorizationPolicy (istio/api security/v1beta1/authorization_policy.proto).
 * SOURCE of what is refused: istio pkg/config/validation/validation.go ValidateAuthorizationPolicy.
 */
import { list, object, optional, type Shape } from "../base/validate.ts";
import type { Path } from "../base/yaml.ts";
import { type Envelope, messages, type Report, readTargets, targeted, targetFields, text, word } from "./admission.ts";
import { checkConditions } from "./check-conditions.ts";
import { checkOperation, checkSource } from "./check-fields.ts";
import {
  type AuthorizationPolicy,
  OPERATION_FIELDS,
  type Operation,
  type Rule,
  SOURCE_FIELDS,
  type Source,
} from "./resources.ts";

const MAX_RULES = 512;
const MAX_SOURCES = 512;

const texts = list(text);

const fieldsOf = <const F extends string>(names: readonly F[]) =>
  object(
    Object.fromEntries(names.map((name) => [name, optional(texts)])) as Record<
      F,
      { shape: Shape<readonly string[]>; required: false }
    >,
  );

const condition = object({
  key: optional(text),
  values: optional(texts),
  notValues: optional(texts),
});

const rule = object({
  from: optional(messages(object({ source: optional(fieldsOf(SOURCE_FIELDS)) }))),
  to: optional(messages(object({ operation: optional(fieldsOf(OPERATION_FIELDS)) }))),
  when: optional(messages(condition)),
});

export const authorizationSpec = targeted(
  object({
    ...targetFields,
    action: optional(word("ALLOW", "DENY", "AUDIT", "CUSTOM")),
    provider: optional(object({ name: optional(text) })),
    rules: optional(messages(rule)),
  }),
);

type Spec = Partial<NonNullable<ReturnType<typeof authorizationSpec.read>>>;
type GivenRule = NonNullable<ReturnType<typeof rule.read>>;

export function readAuthorizationPolicy(
  spec: Spec,
  { annotations, ...envelope }: Envelope,
  report: Report,
): AuthorizationPolicy {
  const action = spec.action ?? "ALLOW";
  const given = spec.rules ?? [];
  if (given.length === 0 && (action === "DENY" || action === "CUSTOM")) {
    report.fault(["spec"], `${action} without rules never matches`, "add the empty rule `{}` to match every request");
  }
  if (given.length > MAX_RULES) {
    report.fault(["spec", "rules"], `at most ${MAX_RULES} rules`, "split the policy");
  }
  checkProvider(spec, action, report);
  return {
    kind: "AuthorizationPolicy",
    ...envelope,
    ...readTargets(spec, report),
    action,
    provider: spec.provider?.name || null,
    dryRun: readDryRun(annotations["istio.io/dry-run"], action, report),
    rules: given.map((each, index) => readRule(each, action, ["spec", "rules", index], report)),
  };
}

function checkProvider(spec: Spec, action: AuthorizationPolicy["action"], report: Report): void {
  if (action === "CUSTOM" && !spec.provider?.name) {
    report.fault(["spec", "provider"], "CUSTOM needs `provider.name`", "name one of meshConfig.extensionProviders");
  }
  if (action !== "CUSTOM" && spec.provider !== undefined) {
    report.fault(["spec", "provider"], `\`provider\` is only for CUSTOM, not for ${action}`);
  }
}

/** SPEC: Go's strconv.ParseBool. */
const TRUE = ["1", "t", "T", "TRUE", "true", "True"];
const FALSE = ["0", "f", "F", "FALSE", "false", "False"];

function readDryRun(value: string | undefined, action: AuthorizationPolicy["action"], report: Report): boolean {
  if (value === undefined) {
    return false;
  }
  const at = ["metadata", "annotations", "istio.io/dry-run"];
  if (action !== "ALLOW" && action !== "DENY") {
    report.fault(at, `a dry run is only for ALLOW and DENY, not for ${action}`);
  }
  if (!TRUE.includes(value) && !FALSE.includes(value)) {
    report.fault(at, `\`${value}\` is neither true nor false`, 'write "true" or "false"');
  }
  return TRUE.includes(value);
}

function readRule(given: GivenRule, action: AuthorizationPolicy["action"], at: Path, report: Report): Rule {
  for (const field of ["from", "to"] as const) {
    if (given[field]?.length === 0) {
      report.finding(
        "empty-list",
        "warning",
        [...at, field],
        `\`${field}: []\` is no condition: it matches everything`,
      );
    }
  }
  if ((given.from?.length ?? 0) > MAX_SOURCES) {
    report.fault([...at, "from"], `at most ${MAX_SOURCES} sources`);
  }
  const from = (given.from ?? []).map((each, index): Source => {
    const path = [...at, "from", index, "source"];
    return readFields(each.source, path, report, (source) => checkSource(source, action, path, report));
  });
  const to = (given.to ?? []).map((each, index): Operation => {
    const path = [...at, "to", index, "operation"];
    return readFields(each.operation, path, report, (operation) => checkOperation(operation, path, report));
  });
  const when = (given.when ?? []).map(({ key, values, notValues }) => ({
    key: key ?? "",
    values: values ?? [],
    notValues: notValues ?? [],
  }));
  checkConditions(when, action, [...at, "when"], report);
  return { from, to, when };
}

/** The fields that have values; a source or operation with none is refused. */
function readFields<T extends { readonly [field: string]: readonly string[] | undefined }>(
  given: T | undefined,
  path: Path,
  report: Report,
  check: (fields: T) => void,
): T {
  if (given === undefined) {
    report.fault(path.slice(0, -1), `\`${path.at(-1)}\` is missing`);
    return {} as T;
  }
  const filled = Object.entries(given).filter(([, values]) => values !== undefined && values.length > 0);
  for (const [field, values] of Object.entries(given)) {
    if (values?.length === 0) {
      report.finding(
        "empty-list",
        "warning",
        [...path, field],
        `\`${field}: []\` is no condition: it matches everything`,
      );
    }
  }
  if (filled.length === 0) {
    report.fault(path, `\`${path.at(-1)}\` has no values`, "to match everything leave it out");
  }
  const fields = Object.fromEntries(filled) as unknown as T;
  check(fields);
  return fields;
}
