/**
 * The slow evaluator: Istio's semantics as the specification tells them, one sentence after the other, for the fast
 * evaluator to be compared with. It shares with it the parsed resources and nothing else.
 */
import type {
  Action,
  AuthorizationPolicy,
  MtlsMode,
  PeerAuthentication,
  RequestAuthentication,
  Resource,
  Rule,
} from "../../src/core/policy/resources.ts";
import { type Context, isHttpOnly, meets } from "./attributes.ts";
import { type Facts, factsOf, type Given } from "./facts.ts";
import type { Scenario } from "./generate.ts";
import { authenticateSlowly, splitAtSpaces } from "./tokens.ts";

export interface SlowAnswer {
  readonly decision: "allow" | "deny";
  readonly status: number;
  readonly reason: string;
  readonly policy: string | null;
  readonly rule: number | null;
  readonly path?: string;
  readonly audit: readonly string[];
  /** With every dry-run policy in force. */
  readonly dryRun: "allow" | "deny";
  readonly mtls: string;
}

interface World {
  readonly mesh: Scenario["mesh"];
  /** Names of the extension providers that are asked over HTTP only. */
  readonly httpProviders: readonly string[];
  readonly nowMs: number;
}

/** By creation, then by name; where nobody said when, last and in the order given. */
function byAge(a: Resource, b: Resource): number {
  if (a.createdMs === null || b.createdMs === null) {
    return a.createdMs === b.createdMs ? a.order - b.order : a.createdMs === null ? 1 : -1;
  }
  const order = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);
  return a.createdMs - b.createdMs || order(a.name, b.name) || order(a.namespace, b.namespace);
}

/** In the workload's namespace or the root namespace, with labels that the workload has; never by targetRefs. */
export function selecting(resources: readonly Resource[], line: Given, rootNamespace: string): Resource[] {
  const { namespace = "default", labels = {} } = line.destination ?? {};
  return resources
    .filter((resource) => resource.namespace === rootNamespace || resource.namespace === namespace)
    .filter(({ targetRefs }) => targetRefs.length === 0)
    .filter(({ selector }) => Object.entries(selector ?? {}).every(([name, value]) => labels[name] === value))
    .sort(byAge);
}

/** Mesh, then namespace, then workload, then port: the narrowest that says something. The oldest of each counts. */
function mtlsMode(resources: readonly Resource[], rootNamespace: string, port: number): MtlsMode {
  const peers = resources.filter((resource): resource is PeerAuthentication => resource.kind === "PeerAuthentication");
  const isWide = ({ selector }: PeerAuthentication): boolean => Object.keys(selector ?? {}).length === 0;
  const mesh = peers.find((peer) => isWide(peer) && peer.namespace === rootNamespace);
  const namespace = peers.find((peer) => isWide(peer) && peer.namespace !== rootNamespace);
  const workload = peers.find((peer) => !isWide(peer) && peer.namespace !== rootNamespace);
  const modes = [workload?.portLevelMtls[String(port)], workload?.mode, namespace?.mode, mesh?.mode];
  return modes.find((mode): mode is MtlsMode => mode !== undefined && mode !== "UNSET") ?? "PERMISSIVE";
}

/** Decides one line. */
export function decideSlowly(resources: readonly Resource[], world: World, line: Given): SlowAnswer {
  const { rootNamespace, pathNormalization } = world.mesh;
  const selected = selecting(resources, line, rootNamespace);
  const mode = mtlsMode(selected, rootNamespace, line.destination?.port ?? -1);
  const facts = factsOf(line, pathNormalization);
  const refusal = (status: number, reason: string): SlowAnswer => ({
    decision: "deny",
    status,
    reason,
    policy: null,
    rule: null,
    ...(facts === null || facts.path === null || line.request === undefined ? {} : { path: facts.path }),
    audit: [],
    dryRun: "deny",
    mtls: mode.toLowerCase(),
  });
  const isMutual = line.source?.principal !== undefined;
  const isTls = isMutual || (line.request === undefined && line.destination?.sni !== undefined);
  if ((mode === "STRICT" && !isMutual) || (mode === "DISABLE" && isTls)) {
    return refusal(-1, "plaintext-refused");
  }
  if (facts === null) {
    return refusal(400, "bad-request");
  }
  if (line.request !== undefined) {
    const status = authenticated(selected, world, line, facts);
    if (status !== null) {
      return refusal(status, "bad-token");
    }
  }
  return byPolicies(selected, world, line.request === undefined, facts, mode);
}

/** Tokens are judged before any policy is asked; claims that were given are taken as judged. */
function authenticated(selected: readonly Resource[], world: World, line: Given, facts: Facts): 401 | 403 | null {
  const rules = selected.filter((each): each is RequestAuthentication => each.kind === "RequestAuthentication");
  const auth = line.request?.auth;
  if (auth === undefined) {
    return authenticateSlowly(rules, world.mesh.rootNamespace, facts, world.nowMs);
  }
  const { issuer, subject, audiences, presenter, claims = {} } = auth;
  const given = Object.entries({ iss: issuer, sub: subject, aud: audiences, azp: presenter });
  facts.claims = splitAtSpaces(
    { ...claims, ...Object.fromEntries(given.filter(([, value]) => value !== undefined)) },
    [],
  );
  return null;
}

interface Match {
  readonly policy: AuthorizationPolicy;
  readonly rule: number;
}

/** CUSTOM, then DENY, then ALLOW; AUDIT never decides. Rules are tried in the order of their names in Envoy. */
function byPolicies(
  selected: readonly Resource[],
  world: World,
  tcp: boolean,
  facts: Facts,
  mode: MtlsMode,
): SlowAnswer {
  const policies = selected.filter((each): each is AuthorizationPolicy => each.kind === "AuthorizationPolicy");
  const wet = policies.filter(({ dryRun }) => !dryRun);
  const matches = (action: Action, of: readonly AuthorizationPolicy[]): Match[] =>
    of
      .filter((policy) => policy.action === action)
      .filter((policy) => !(tcp && action === "CUSTOM") || isAskedOnTcp(policy, of, world))
      .flatMap((policy) => policy.rules.map((_, rule) => ({ policy, rule })))
      .filter((match) => ruleMatches(match, facts, tcp, world))
      .sort((a, b) => (idOf(a) < idOf(b) ? -1 : 1));
  const decide = (of: readonly AuthorizationPolicy[]): { readonly reason: string; readonly by?: Match | undefined } => {
    const [custom] = matches("CUSTOM", of);
    const [denied] = matches("DENY", of);
    const [allowed] = matches("ALLOW", of);
    // Nobody can be asked here, and the check fails closed.
    return custom !== undefined
      ? { reason: "custom-denied", by: custom }
      : denied !== undefined
        ? { reason: "deny-rule", by: denied }
        : !of.some(({ action }) => action === "ALLOW")
          ? { reason: "no-policy" }
          : allowed !== undefined
            ? { reason: "allow-rule", by: allowed }
            : { reason: "no-allow-matched" };
  };
  const isAllowed = (reason: string): boolean => reason === "no-policy" || reason === "allow-rule";
  const { reason, by } = decide(wet);
  const allowed = isAllowed(reason);
  return {
    decision: allowed ? "allow" : "deny",
    status: tcp ? (allowed ? 0 : -1) : allowed ? 200 : 403,
    reason,
    policy: by === undefined ? null : nameOf(by.policy),
    rule: by?.rule ?? null,
    ...(tcp || facts.path === null ? {} : { path: facts.path }),
    audit: [...new Set(matches("AUDIT", wet).map(({ policy }) => nameOf(policy)))],
    dryRun: isAllowed(decide(policies).reason) ? "allow" : "deny",
    mtls: mode.toLowerCase(),
  };
}

const nameOf = ({ namespace, name }: AuthorizationPolicy): string => `${namespace}/${name}`;
const idOf = ({ policy, rule }: Match): string => `ns[${policy.namespace}]-policy[${policy.name}]-rule[${rule}]`;

/** An HTTP provider is not asked about TCP, unless the workload has several: then none can be, and all deny. */
function isAskedOnTcp(policy: AuthorizationPolicy, of: readonly AuthorizationPolicy[], world: World): boolean {
  const providers = new Set(of.filter(({ action }) => action === "CUSTOM").map(({ provider }) => provider));
  return providers.size > 1 || !world.httpProviders.includes(policy.provider ?? "");
}

/** One of `from`, one of `to`, all of `when`; what is left out is no condition. */
function ruleMatches({ policy, rule: index }: Match, facts: Facts, tcp: boolean, { mesh }: World): boolean {
  const rule = policy.rules[index] as Rule;
  const context = { policyNamespace: policy.namespace, domains: [mesh.trustDomain, ...mesh.trustDomainAliases] };
  const from = rule.from.map((source) => fieldsMeet(source, facts, tcp, context));
  const to = rule.to.map((operation) => fieldsMeet(operation, facts, tcp, context));
  const when = rule.when.map(({ key, values, notValues }) =>
    all([
      conditionMeets(key, values, false, facts, tcp, context),
      conditionMeets(key, notValues, true, facts, tcp, context),
    ]),
  );
  if (policy.action === "ALLOW" && [...from, ...to, ...when].some((outcome) => outcome.startsWith("dropped"))) {
    return false;
  }
  // Whatever is dropped from a DENY (or AUDIT, CUSTOM) rule no longer restricts it.
  const holds = (outcome: Outcome): boolean => outcome === "yes" || outcome === "dropped";
  return (from.length === 0 || from.some(holds)) && (to.length === 0 || to.some(holds)) && when.every(holds);
}

/** `dropped`: true but for a part that Istio's compiler could not express. */
type Outcome = "yes" | "no" | "dropped" | "dropped and no";

function all(outcomes: readonly Outcome[]): Outcome {
  const dropped = outcomes.some((outcome) => outcome.startsWith("dropped"));
  const no = outcomes.some((outcome) => outcome.endsWith("no"));
  return dropped ? (no ? "dropped and no" : "dropped") : no ? "no" : "yes";
}

function fieldsMeet(fields: object, facts: Facts, tcp: boolean, context: Context): Outcome {
  return all(
    Object.entries(fields as Record<string, readonly string[]>).map(([field, values]) => {
      const positive = field.replace(/^not(.)/, (_, letter: string) => letter.toLowerCase());
      return conditionMeets(positive, values, positive !== field, facts, tcp, context);
    }),
  );
}

/** A missing attribute meets no positive field and every negated one. */
function conditionMeets(
  key: string,
  values: readonly string[],
  negated: boolean,
  facts: Facts,
  tcp: boolean,
  context: Context,
): Outcome {
  if (values.length === 0) {
    return "yes";
  }
  const met = tcp && isHttpOnly(key) ? null : meets(key, values, facts, context);
  return met === null ? "dropped" : met !== negated ? "yes" : "no";
}
