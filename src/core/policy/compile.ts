/** Compiles the resources that select a workload into what `evaluate.ts` decides from. Done once per change. */
import { type CompiledTokens, compileTokens } from "./authenticate.ts";
import type { MeshConfig } from "./mesh-config.ts";
import { composeMtls, type MtlsModes } from "./mtls.ts";
import type { AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Resource } from "./resources.ts";
import { RuleIndex } from "./rule-index.ts";
import { compileRule, type Layer } from "./rules.ts";
import { selectResources, type WorkloadScope } from "./select.ts";
import type { Test } from "./tests.ts";
import { VerdictTable } from "./verdict-table.ts";

export interface MeshScope {
  readonly trustDomain: string;
  readonly meshConfig: MeshConfig;
}

/** The policies of one workload, ready to decide. */
export interface CompiledPolicy {
  readonly workload: WorkloadScope;
  readonly mesh: MeshScope;
  /** The AuthorizationPolicies in force, oldest first. */
  readonly policies: readonly AuthorizationPolicy[];
  readonly requestAuthentications: readonly RequestAuthentication[];
  readonly peerAuthentications: readonly PeerAuthentication[];
  readonly tokens: CompiledTokens;
  readonly mtls: MtlsModes;
  readonly http: RuleSets;
  readonly tcp: RuleSets;
}

/** The rules of one layer by what they do. */
export interface RuleSets {
  readonly custom: RuleIndex;
  readonly deny: RuleIndex;
  readonly allow: RuleIndex;
  readonly audit: RuleIndex;
  readonly dryDeny: RuleIndex;
  readonly dryAllow: RuleIndex;
  /** An ALLOW policy is in force, with or without rules: what matches none is denied. */
  readonly denyByDefault: boolean;
  readonly dryDenyByDefault: boolean;
  readonly hasDryRun: boolean;
  /** No CUSTOM, AUDIT or dry-run policy. */
  readonly isPlain: boolean;
  readonly verdicts: VerdictTable;
}

/** `resources` may be all of the mesh's or the workload's slice. */
export function compile(resources: readonly Resource[], workload: WorkloadScope, mesh: MeshScope): CompiledPolicy {
  const selected = selectResources(resources, workload, mesh.meshConfig);
  const policies = selected.filter((resource) => resource.kind === "AuthorizationPolicy");
  const domains = [mesh.trustDomain, ...mesh.meshConfig.trustDomainAliases];
  const requestAuthentications = selected.filter((resource) => resource.kind === "RequestAuthentication");
  let tokens: CompiledTokens | null = null;
  let http: RuleSets | null = null;
  let tcp: RuleSets | null = null;
  return {
    workload,
    mesh,
    policies,
    requestAuthentications,
    peerAuthentications: selected.filter((resource) => resource.kind === "PeerAuthentication"),
    get tokens() {
      tokens ??= compileTokens(requestAuthentications, mesh.meshConfig.rootNamespace);
      return tokens;
    },
    mtls: composeMtls(selected, mesh.meshConfig.rootNamespace),
    // A port speaks one of the two: only what is asked for is compiled.
    get http() {
      http ??= compileRules(policies, "http", domains, mesh.meshConfig);
      return http;
    },
    get tcp() {
      tcp ??= compileRules(policies, "tcp", domains, mesh.meshConfig);
      return tcp;
    },
  };
}

function compileRules(
  policies: readonly AuthorizationPolicy[],
  layer: Layer,
  domains: readonly string[],
  meshConfig: MeshConfig,
): RuleSets {
  const shared = new Map<string, Test | null>();
  const rulesOf = (chosen: readonly AuthorizationPolicy[]): RuleIndex => {
    const rules = chosen
      .flatMap((policy) => policy.rules.map((_, index) => compileRule(policy, index, layer, domains, shared)))
      .filter((rule) => rule !== null)
      .sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    return new RuleIndex(rules, layer, domains);
  };
  const of = (action: AuthorizationPolicy["action"], dryRun: boolean) =>
    policies.filter((policy) => policy.action === action && policy.dryRun === dryRun);
  const custom = layer === "http" ? of("CUSTOM", false) : askedOnTcp(of("CUSTOM", false), meshConfig);
  const sets = {
    custom: rulesOf(custom),
    deny: rulesOf(of("DENY", false)),
    allow: rulesOf(of("ALLOW", false)),
    audit: rulesOf(of("AUDIT", false)),
    dryDeny: rulesOf(of("DENY", true)),
    dryAllow: rulesOf(of("ALLOW", true)),
  };
  const hasDryRun = policies.some((policy) => policy.dryRun);
  return {
    ...sets,
    denyByDefault: of("ALLOW", false).length > 0,
    dryDenyByDefault: of("ALLOW", true).length > 0,
    hasDryRun,
    isPlain: !hasDryRun && sets.custom.rules.length === 0 && sets.audit.rules.length === 0,
    verdicts: new VerdictTable(sets, layer),
  };
}

/**
 * On TCP only a gRPC provider is asked, and an unknown one denies; so do several on one workload.
 * SOURCE: istio authz/builder buildTCP.
 */
function askedOnTcp(policies: readonly AuthorizationPolicy[], meshConfig: MeshConfig): readonly AuthorizationPolicy[] {
  if (new Set(policies.map(({ provider }) => provider)).size > 1) {
    return policies;
  }
  return policies.filter(({ provider }) => {
    const known = meshConfig.extensionProviders.find(({ name }) => name === provider);
    return known === undefined || known.kind === "grpc" || known.kind === "wasm";
  });
}
