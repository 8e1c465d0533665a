/**
 * Rules on proven identities where a caller need not prove one: a connection without mutual TLS has no identity, so that
 * `principals` is false for it and `notPrincipals` true. And the same for tokens.
 */
import { composeMtls } from "../mtls.ts";
import type { AuthorizationPolicy } from "../resources.ts";
import { type Field, ruleFields } from "../rules.ts";
import { hasLabels, selectResources } from "../select.ts";
import { type Finding, type LintContext, type MeshWorkload, selectedBy, workloadName } from "./finding.ts";

export function lintPlaintext(context: LintContext): Finding[] {
  const peers = context.resources.filter(({ kind }) => kind === "PeerAuthentication");
  const requiring = context.policies.filter(requiresMutual);
  return context.policies.flatMap((policy) => {
    if (policy.targetRefs.length > 0 || policy.action === "CUSTOM" || policy.action === "AUDIT") {
      return [];
    }
    return [
      ...plaintextRules(policy, () =>
        isGuarded(policy, requiring, context) ? null : openWorkload(policy, { ...context, resources: peers }),
      ),
      ...(policy.action === "ALLOW" ? tokenlessRules(policy) : []),
    ];
  });
}

/** A workload the policy selects that takes plaintext; null where none is known to. */
function openWorkload(policy: AuthorizationPolicy, context: LintContext): MeshWorkload | null {
  const known = selectedBy(policy, context);
  // Nothing is known of the workloads: one with just the labels that are asked for stands for all.
  const candidates = known ?? [{ namespace: policy.namespace, labels: policy.selector ?? {} }];
  return candidates.find((workload) => takesPlaintext(workload, policy, context)) ?? null;
}

function takesPlaintext(workload: MeshWorkload, policy: AuthorizationPolicy, context: LintContext): boolean {
  const { rootNamespace } = context.meshConfig;
  // A workload somewhere in the mesh may have a stricter resource of its own namespace.
  if (context.workloads === null && policy.namespace === rootNamespace && hasNamespacePeers(context)) {
    return false;
  }
  const { mode, perPort } = composeMtls(
    selectResources(context.resources, workload, context.meshConfig),
    rootNamespace,
  );
  const ofPort = workload.port === undefined ? undefined : perPort.get(workload.port);
  return (ofPort ?? mode) !== "STRICT";
}

const hasNamespacePeers = ({ resources, meshConfig }: LintContext): boolean =>
  resources.some(({ kind, namespace }) => kind === "PeerAuthentication" && namespace !== meshConfig.rootNamespace);

/** A DENY policy for whole namespaces that refuses whoever proves nothing. */
function requiresMutual(policy: AuthorizationPolicy): boolean {
  return (
    policy.action === "DENY" &&
    !policy.dryRun &&
    !hasLabels(policy) &&
    policy.rules.some(
      ({ from, to, when }) =>
        to.length === 0 && when.length === 0 && from.some(({ notPrincipals }) => notPrincipals?.includes("*") === true),
    )
  );
}

const isGuarded = (
  { namespace }: AuthorizationPolicy,
  requiring: readonly AuthorizationPolicy[],
  { meshConfig }: LintContext,
): boolean => requiring.some((other) => other.namespace === namespace || other.namespace === meshConfig.rootNamespace);

const IDENTITY = ["source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"];
const isIdentity = ({ attribute }: Field): boolean => IDENTITY.includes(attribute.kind);

function plaintextRules(policy: AuthorizationPolicy, openWorkloadOf: () => MeshWorkload | null): Finding[] {
  const isAllow = policy.action === "ALLOW";
  const suspects = policy.rules.flatMap((rule, index) => {
    const { from, when } = ruleFields(rule);
    const field = isAllow ? looseNegation(from, when, isIdentity) : positiveIdentity(from, when);
    return field === null ? [] : [{ field, index }];
  });
  // Which workloads take plaintext is only asked where it matters: there may be thousands of policies.
  const open = suspects.length === 0 ? null : openWorkloadOf();
  if (open === null) {
    return [];
  }
  const nobody = `for a caller that proves no identity, and ${workloadName(open)} takes plaintext`;
  return suspects.map(
    ({ field, index }): Finding => ({
      code: isAllow ? "plaintext-matches" : "plaintext-evades",
      severity: "warning",
      resource: policy,
      path: ["spec", "rules", index],
      message: isAllow
        ? `\`${field}\` is true ${nobody}: the rule lets it in`
        : `\`${field}\` is false ${nobody}: it evades the rule`,
      hint: "make it STRICT with a PeerAuthentication",
    }),
  );
}

const named = (field: Field): string => field.condition?.key ?? field.field;

/** A negation that holds for nobody in particular: an alternative that asks nothing positive of the kind. */
function looseNegation(
  from: readonly (readonly Field[])[],
  when: readonly Field[],
  isKind: (field: Field) => boolean,
): string | null {
  const wanted = when.filter(isKind);
  if (wanted.some((field) => !field.negated)) {
    return null;
  }
  const alternatives = from.length === 0 ? [[]] : from;
  for (const fields of alternatives) {
    const own = [...fields.filter(isKind), ...wanted];
    if (own.length > 0 && own.every((field) => field.negated)) {
      return named(own[0]!);
    }
  }
  return null;
}

/** What every way to match the rule asks of an identity; null where there is a way without. */
function positiveIdentity(from: readonly (readonly Field[])[], when: readonly Field[]): string | null {
  const isPositive = (field: Field): boolean => isIdentity(field) && !field.negated;
  const condition = when.find(isPositive);
  if (condition !== undefined) {
    return named(condition);
  }
  const each = from.map((fields) => fields.find(isPositive));
  const [first] = each;
  return first === undefined || each.includes(undefined) ? null : named(first);
}

const isToken = ({ attribute }: Field): boolean =>
  attribute.kind === "claim" || attribute.kind.startsWith("request.auth.");

function tokenlessRules(policy: AuthorizationPolicy): Finding[] {
  return policy.rules.flatMap((rule, index): Finding[] => {
    const { from, when } = ruleFields(rule);
    const loose = looseNegation(from, when, isToken);
    return loose === null
      ? []
      : [
          {
            code: "tokenless-matches",
            severity: "warning",
            resource: policy,
            path: ["spec", "rules", index],
            message: `\`${loose}\` is true for a request without a token: the rule lets it in`,
            hint: 'ask for a token besides: `requestPrincipals: ["*"]`',
          },
        ];
  });
}
