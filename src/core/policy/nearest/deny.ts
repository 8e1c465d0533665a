/** Where a DENY policy matched: an exception to each of its rules that did, for this caller, path, address or port. */
import { formatPointer, type PatchOperation } from "../../base/json-patch.ts";
import type { AuthorizationPolicy } from "../resources.ts";
import { matchesRule } from "../rule-index.ts";
import type { CompiledRule } from "../rules.ts";
import { compiledRules, type Edit, holdsAll, type NearestMiss, nameOf, patched, rulesIn, type Scene } from "./scene.ts";

interface Exception {
  readonly part: "from" | "to";
  readonly inner: "source" | "operation";
  readonly field: string;
  readonly value: string;
}

/** One change for each DENY policy that matches; null where one of them cannot be made to let the request through. */
export function denyChanges(scene: Scene): NearestMiss[] | null {
  const changes: NearestMiss[] = [];
  const matches = compiledRules(scene, "deny").filter((rule) => matchesRule(rule, scene.peer, scene.view));
  for (const [policy, matching] of Map.groupBy(matches, (rule) => rule.policy)) {
    const change = exceptFrom(scene, policy, matching);
    if (change === null) {
      return null;
    }
    changes.push(change);
  }
  return changes;
}

function exceptFrom(scene: Scene, policy: AuthorizationPolicy, matching: readonly CompiledRule[]): NearestMiss | null {
  const edits: Edit[] = [];
  for (const rule of matching) {
    const edit = exceptFromRule(scene, policy, rule);
    if (edit === null) {
      return null;
    }
    edits.push(edit);
  }
  const texts = [...new Set(edits.map(({ text }) => text))];
  return {
    kind: policy.kind,
    policy: nameOf(policy),
    rule: matching[0]?.rule ?? null,
    would: `be allowed if ${texts.join(" and ")}`,
    patch: edits.flatMap(({ patch }) => patch),
  };
}

function exceptFromRule(scene: Scene, policy: AuthorizationPolicy, rule: CompiledRule): Edit | null {
  for (const exception of exceptionsFor(scene)) {
    const patch = patchOf(scene, policy, rule, exception);
    const next = patched(policy, patch);
    const after = next === null ? undefined : rulesIn(scene, next).find((each) => each.rule === rule.rule);
    if (after !== undefined && !matchesRule(after, scene.peer, scene.view)) {
      return { text: `\`${exception.field}\` included \`${exception.value}\``, patch };
    }
  }
  return null;
}

/** The narrowest first. */
function exceptionsFor({ peer, peerFacts, view }: Scene): Exception[] {
  const [namespace, account] = [after(peer.principal, "ns"), after(peer.principal, "sa")];
  const source = (field: string, value: string | null): Exception[] =>
    value ? [{ part: "from", inner: "source", field, value }] : [];
  const operation = (field: string, value: string | null): Exception[] =>
    value ? [{ part: "to", inner: "operation", field, value }] : [];
  return [
    ...source("notPrincipals", peer.principal),
    // A source that names service accounts takes no principals.
    ...source("notServiceAccounts", namespace === null || account === null ? null : `${namespace}/${account}`),
    ...operation("notPaths", view?.path ?? null),
    ...source("notIpBlocks", peerFacts.sourceIp),
    ...operation("notMethods", view?.facts.method ?? null),
    ...operation("notPorts", peer.port < 0 ? null : String(peer.port)),
  ];
}

function after(principal: string | null, name: string): string | null {
  const segments = principal?.split("/") ?? [];
  const at = segments.indexOf(name, 1);
  return at === -1 ? null : (segments[at + 1] ?? null);
}

/** Every alternative that holds gets the exception; the others do not need it. */
function patchOf(
  scene: Scene,
  policy: AuthorizationPolicy,
  rule: CompiledRule,
  { part, inner, field, value }: Exception,
): PatchOperation[] {
  const base = ["spec", "rules", rule.rule, part];
  const alternatives = rule[part];
  if (alternatives.length === 0) {
    return [{ op: "add", path: formatPointer(base), value: [{ [inner]: { [field]: [value] } }] }];
  }
  const given = policy.rules[rule.rule]?.[part] as readonly Readonly<Record<string, unknown>>[];
  return alternatives.flatMap((tests, index): PatchOperation[] => {
    if (!holdsAll(scene, tests)) {
      return [];
    }
    const at = [...base, index, inner, field];
    return given[index]?.[field] === undefined
      ? [{ op: "add", path: formatPointer(at), value: [value] }]
      : [{ op: "add", path: formatPointer([...at, "-"]), value }];
  });
}
