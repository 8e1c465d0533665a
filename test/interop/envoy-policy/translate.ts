/**
 * Policies as the filters Istio gives a sidecar's Envoy: written from the description of its compiler, apart from
 * core/policy, so that a real Envoy can be a third judge. CUSTOM: nobody can be asked, so its rules deny.
 */
import type { Action, AuthorizationPolicy, JwtRule, Resource, Rule } from "../../../src/core/policy/resources.ts";
import { expandPrincipals } from "../../reference/attributes.ts";
import { selecting } from "../../reference/evaluate.ts";
import { type Scenario, WORKLOAD } from "../../reference/generate.ts";
import type { Filters } from "./config.ts";
import * as match from "./matchers.ts";

/** What a field or condition becomes; null: nothing, since Istio's compiler cannot say it here. */
type Made = { readonly of: "permission" | "principal"; readonly any: object } | null;

interface Context {
  readonly policy: AuthorizationPolicy;
  readonly mesh: Scenario["mesh"];
  readonly tcp: boolean;
}

const permission = (rules: readonly object[]): Made => ({ of: "permission", any: { or_rules: { rules } } });
const principal = (ids: readonly object[]): Made => ({ of: "principal", any: { or_ids: { ids } } });

const header = (name: string, values: readonly string[], ignoreCase = false): readonly object[] =>
  values.map((value) => ({ header: match.headerMatcher(name, value, ignoreCase) }));

function make(key: string, values: readonly string[], context: Context): Made {
  const { mesh, policy, tcp } = context;
  const domains = [mesh.trustDomain, ...mesh.trustDomainAliases];
  switch (key) {
    case "hosts":
      return tcp ? null : permission(header(":authority", values, true));
    case "methods":
      return tcp ? null : permission(header(":method", values));
    case "paths":
      return tcp ? null : permission(values.map(match.path));
    case "ports":
    case "destination.port":
      return permission(values.map((value) => ({ destination_port: Number(value) })));
    case "destination.ip":
      return permission(values.map((value) => ({ destination_ip: match.cidr(value) })));
    case "connection.sni":
      return permission(values.map((value) => ({ requested_server_name: match.stringMatcher(value) })));
    case "principals":
    case "source.principal":
      return principal(expandPrincipals(values, domains).map(match.principal));
    case "namespaces":
    case "source.namespace":
      return principal(values.map(match.namespace));
    case "serviceAccounts":
    case "source.serviceAccount":
      return principal(values.map((value) => match.serviceAccount(value, policy.namespace)));
    case "trustDomains":
    case "source.trustDomain":
      return principal(values.flatMap((value) => (domains.includes(value) ? domains : [value])).map(match.trustDomain));
    case "ipBlocks":
    case "source.ip":
      return principal(values.map((value) => ({ direct_remote_ip: match.cidr(value) })));
    case "remoteIpBlocks":
    case "remote.ip":
      return principal(values.map((value) => ({ remote_ip: match.cidr(value) })));
    default:
      return key.startsWith("experimental.") ? metadata(key, values) : tcp ? null : makeOfRequest(key, values);
  }
}

function metadata(key: string, values: readonly string[]): Made {
  const [, filter, name] = /^experimental\.(.*?)\[(.*)\]$/.exec(key) ?? [];
  const texts = values.map((value) => ({ string_match: match.stringMatcher(value) }));
  const value = texts.length === 1 ? texts[0] : { or_match: { value_matchers: texts } };
  return permission([{ metadata: { filter, path: [{ key: name }], value } }]);
}

function makeOfRequest(key: string, values: readonly string[]): Made {
  switch (key) {
    case "requestPrincipals":
    case "request.auth.principal":
      return principal(values.map(match.requestPrincipal));
    case "request.auth.audiences":
      return principal([match.claimValues(["aud"], values)]);
    case "request.auth.presenter":
      return principal([match.claimValues(["azp"], values)]);
    default:
      break;
  }
  const [, kind, names] = /^request\.(headers|auth\.claims)\[(.*)\]$/s.exec(key) ?? [];
  if (names === undefined) {
    return null;
  }
  return kind === "headers"
    ? principal(header(names, values))
    : principal([match.claimValues(names.split("]["), values)]);
}

/** All parts of an alternative that are of one kind; null where a part is dropped and that drops the rule. */
function parts(fields: readonly (readonly [string, readonly string[], boolean])[], context: Context) {
  const made = { permission: [] as object[], principal: [] as object[] };
  for (const [key, values, negated] of fields) {
    const one = values.length === 0 ? undefined : make(key, values, context);
    if (one === null && context.policy.action === "ALLOW") {
      return null;
    }
    if (one !== null && one !== undefined) {
      made[one.of].push(negated ? { [one.of === "principal" ? "not_id" : "not_rule"]: one.any } : one.any);
    }
  }
  return made;
}

const namedFields = (fields: object) =>
  Object.entries(fields as Record<string, readonly string[]>).map(([field, values]) => {
    const positive = field.replace(/^not(.)/, (_, letter: string) => letter.toLowerCase());
    return [positive, values, positive !== field] as const;
  });

const orAny = (list: readonly object[]): readonly object[] => (list.length === 0 ? [{ any: true }] : list);

function rulePolicy(rule: Rule, context: Context): object | null {
  const when = parts(
    rule.when.flatMap(({ key, values, notValues }) => [[key, values, false] as const, [key, notValues, true] as const]),
    context,
  );
  const from = rule.from.map((source) => parts(namedFields(source), context));
  const to = rule.to.map((operation) => parts(namedFields(operation), context));
  if (when === null || from.includes(null) || to.includes(null)) {
    return null;
  }
  const alternatives = <K extends "permission" | "principal">(all: typeof from, kind: K): object[][] =>
    (all.length === 0 ? [[]] : all.map((each) => each?.[kind] ?? [])).map((each) => [...each, ...when[kind]]);
  return {
    permissions: alternatives(to, "permission").map((rules) => ({ and_rules: { rules: orAny(rules) } })),
    principals: alternatives(from, "principal").map((ids) => ({ and_ids: { ids: orAny(ids) } })),
  };
}

const NEVER = { permissions: [{ not_rule: { any: true } }], principals: [{ not_id: { any: true } }] };

function rbac(
  policies: readonly AuthorizationPolicy[],
  action: string,
  mesh: Scenario["mesh"],
  tcp: boolean,
): object | null {
  if (policies.length === 0) {
    return null;
  }
  const rules: Record<string, object> = {};
  for (const policy of policies) {
    const named = policy.rules.map((rule) => rulePolicy(rule, { policy, mesh, tcp }));
    for (const [index, made] of (named.length === 0 ? [NEVER] : named).entries()) {
      if (made !== null) {
        rules[`ns[${policy.namespace}]-policy[${policy.name}]-rule[${index}]`] = made;
      }
    }
  }
  const layer = tcp ? "network" : "http";
  return {
    name: `envoy.filters.${layer}.rbac`,
    typed_config: {
      "@type": `type.googleapis.com/envoy.extensions.filters.${layer}.rbac.v3.RBAC`,
      rules: { action, policies: rules },
      ...(tcp ? { stat_prefix: "tcp." } : {}),
    },
  };
}

const ORDER: readonly (readonly [Action, string])[] = [
  ["CUSTOM", "DENY"],
  ["AUDIT", "LOG"],
  ["DENY", "DENY"],
  ["ALLOW", "ALLOW"],
];

function jwtFilter(rules: readonly JwtRule[]): object {
  const providers = Object.fromEntries(
    rules.map((rule, index) => [
      `origins-${index}`,
      {
        issuer: rule.issuer,
        audiences: rule.audiences,
        forward: rule.forwardOriginalToken,
        payload_in_metadata: "payload",
        normalize_payload_in_metadata: {
          space_delimited_claims: ["permission", "scope", ...rule.spaceDelimitedClaims],
        },
        claim_to_headers: rule.outputClaimToHeaders.map((each) => ({
          header_name: each.header,
          claim_name: each.claim,
        })),
        from_headers: rule.fromHeaders.map(({ name, prefix }) => ({ name, value_prefix: prefix })),
        from_params: rule.fromParams,
        from_cookies: rule.fromCookies,
        local_jwks: { inline_string: rule.jwks },
      },
    ]),
  );
  const named = Object.keys(providers).map((provider_name) => ({ provider_name }));
  const orMissing = named.map((one) => ({ requires_any: { requirements: [one, { allow_missing: {} }] } }));
  const requires =
    named.length === 1
      ? orMissing[0]
      : { requires_any: { requirements: [...named, { requires_all: { requirements: orMissing } }] } };
  return {
    name: "envoy.filters.http.jwt_authn",
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
      providers,
      rules: [{ match: { prefix: "/" }, requires }],
      bypass_cors_preflight: true,
    },
  };
}

/** The filters of the workload's listeners. */
export function translate(resources: readonly Resource[], mesh: Scenario["mesh"]): Filters {
  const selected = selecting(resources, { destination: WORKLOAD }, mesh.rootNamespace);
  const policies = selected.filter((each): each is AuthorizationPolicy => each.kind === "AuthorizationPolicy");
  const filters = (tcp: boolean): object[] =>
    ORDER.flatMap(([action, envoyAction]) => {
      const chosen = policies.filter((policy) => policy.action === action && !policy.dryRun);
      return rbac(chosen, envoyAction, mesh, tcp) ?? [];
    });
  const ours = (own: boolean) =>
    selected.flatMap((each) =>
      each.kind === "RequestAuthentication" && (each.namespace !== mesh.rootNamespace) === own ? each.jwtRules : [],
    );
  const jwtRules = [...ours(true), ...ours(false)].sort((a, b) =>
    a.issuer < b.issuer ? -1 : a.issuer > b.issuer ? 1 : 0,
  );
  return { http: [...(jwtRules.length === 0 ? [] : [jwtFilter(jwtRules)]), ...filters(false)], tcp: filters(true) };
}
