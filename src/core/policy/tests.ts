/**
 * One test per compared field: a list of values of an attribute, as in `paths`, `notPrincipals` or a condition's
 * `values`. SOURCE: istio pilot/pkg/security/authz/model/generator.go.
 */
import { type IpAddress, parseCidr } from "../base/cidr.ts";
import { CidrTable } from "../base/cidr-table.ts";
import { asciiLower, matchesPattern, PatternSet, parsePattern, toWire } from "../base/pattern.ts";
import { matchesClaim, RequestPrincipalSet } from "./claims.ts";
import type { ConditionAttribute } from "./condition-key.ts";
import type { HttpFacts, HttpView, Peer, Test } from "./facts.ts";
import { namespacesMatcher, serviceAccountMatcher, trustDomainsMatcher } from "./identity.ts";
import { isTemplate, TemplateSet } from "./path-template.ts";
import { expandPrincipals, expandTrustDomains } from "./trust-domain.ts";

export type { HttpView, Test } from "./facts.ts";

export interface TestContext {
  readonly policyNamespace: string;
  /** The mesh's own trust domain, then its aliases. */
  readonly trustDomains: readonly string[];
  /** Tests made already, for rules that ask for the same. */
  readonly shared?: Map<string, Test | null>;
}

/** An attribute of a connection or request that a rule can ask for. */
export type Attribute = ConditionAttribute | { readonly kind: "hosts" | "methods" | "paths" };

/** Whether the attribute exists on HTTP only; on TCP, what asks for it is dropped. */
export function isHttpOnly(attribute: Attribute): boolean {
  switch (attribute.kind) {
    case "hosts":
    case "methods":
    case "paths":
    case "header":
    case "claim":
    case "request.auth.principal":
    case "request.auth.audiences":
    case "request.auth.presenter":
      return true;
    default:
      return false;
  }
}

/** Whether the connection alone decides it. On HTTP each request may tell another remote address. */
export function isPeerAttribute(attribute: Attribute, isHttp: boolean): boolean {
  return attribute.kind === "remote.ip" ? !isHttp : attribute.kind === "metadata" || !isHttpOnly(attribute);
}

/** The test that one of `values` is met; null where Istio's compiler drops it (a key that only looks like a header's). */
export function compileTest(attribute: Attribute, values: readonly string[], context: TestContext): Test | null {
  switch (attribute.kind) {
    case "source.principal":
      return onPrincipal(patternMatcher(expandPrincipals(values, context.trustDomains)));
    case "source.namespace":
      return onPrincipal(namespacesMatcher(values));
    case "source.serviceAccount":
      return onPrincipal(anyOf(values.map((value) => serviceAccountMatcher(value, context.policyNamespace))));
    case "source.trustDomain":
      return onPrincipal(trustDomainsMatcher(expandTrustDomains(values, context.trustDomains)));
    case "source.ip":
      return onAddress(values, (peer) => peer.source);
    case "remote.ip":
      return onAddress(values, (peer, request) => (request === null ? peer.remote : request.remote));
    case "destination.ip":
      return onAddress(values, (peer) => peer.destination);
    case "destination.port": {
      const ports = new Set(values.map(Number));
      return (peer) => ports.has(peer.port);
    }
    case "connection.sni": {
      const names = new PatternSet(values);
      return (peer) => peer.sni !== null && names.matches(peer.sni);
    }
    case "hosts":
      return hostTest(values);
    case "methods": {
      const methods = headerPatterns(values);
      return (_, request) => request !== null && request.facts.method !== null && methods(request.facts.method);
    }
    case "paths":
      return pathTest(values);
    case "header":
      return attribute.name === null ? null : headerTest(attribute.name, values);
    case "claim":
      return attribute.path === null ? null : claimTest(attribute.path, values);
    case "request.auth.audiences":
      return claimTest(["aud"], values);
    case "request.auth.presenter":
      return claimTest(["azp"], values);
    case "request.auth.principal": {
      const principals = new RequestPrincipalSet(values);
      return (_, request) => {
        const claims = request?.facts.auth ?? null;
        return claims !== null && principals.matches(claims);
      };
    }
    case "metadata":
      return () => false;
  }
}

type Matcher = (value: string) => boolean;

/** HOT: one or two patterns are most lists; comparing them alone is what memory is touched least for. */
function patternMatcher(values: readonly string[]): Matcher {
  const [only, other] = values.length <= 2 ? values.map(parsePattern) : [];
  if (only !== undefined && other !== undefined) {
    return (value) => matchesPattern(only, value) || matchesPattern(other, value);
  }
  if (only?.kind === "exact") {
    const { text } = only;
    return (value) => value === text;
  }
  if (only !== undefined) {
    return (value) => matchesPattern(only, value);
  }
  const patterns = new PatternSet(values);
  return (value) => patterns.matches(value);
}

function anyOf(matchers: readonly Matcher[]): Matcher {
  const [only] = matchers;
  if (matchers.length === 1 && only !== undefined) {
    return only;
  }
  return (value) => {
    for (let index = 0; index < matchers.length; index++) {
      if (matchers[index]!(value)) {
        return true;
      }
    }
    return false;
  };
}

function onPrincipal(matcher: Matcher): Test {
  return (peer) => peer.principal !== null && matcher(peer.principal);
}

function onAddress(
  values: readonly string[],
  address: (peer: Peer, request: HttpView | null) => IpAddress | null,
): Test {
  const blocks = new CidrTable();
  for (const value of values) {
    const block = parseCidr(value);
    if (block !== null) {
      blocks.add(block, 0);
    }
  }
  return (peer, request) => {
    const given = address(peer, request);
    return given !== null && blocks.has(given);
  };
}

/** Patterns over header values: here `*` is presence, and an empty value is present. */
function headerPatterns(values: readonly string[]): Matcher {
  if (values.includes("*")) {
    return () => true;
  }
  return patternMatcher(values.map(toWire));
}

function hostTest(values: readonly string[]): Test {
  const hosts = headerPatterns(values.map((value) => asciiLower(value)));
  return (_, request) => request !== null && request.host !== null && hosts(request.host);
}

function pathTest(values: readonly string[]): Test {
  const plain = patternMatcher(values.filter((value) => !isTemplate(value)).map(toWire));
  if (!values.some(isTemplate)) {
    return (_, request) => request !== null && request.path !== null && plain(request.path);
  }
  const templates = new TemplateSet(values.filter(isTemplate));
  return (_, request) => {
    const path = request?.path ?? null;
    return path !== null && (plain(path) || templates.matches(path));
  };
}

/** Each line of the header is compared by itself: one that matches suffices. */
function headerTest(name: string, values: readonly string[]): Test {
  const matches = headerPatterns(values);
  return (peer, request) => {
    const lines = request === null ? null : headerLines(name, peer, request.facts);
    if (typeof lines === "string") {
      return matches(lines);
    }
    for (let index = 0; lines !== null && index < lines.length; index++) {
      if (matches(lines[index]!)) {
        return true;
      }
    }
    return false;
  };
}

/** HOT: the lines of a header, or its value where it can have but one; null where it is absent. */
export function headerLines(name: string, peer: Peer, facts: HttpFacts): readonly string[] | string | null {
  switch (name) {
    case ":path":
      return facts.path;
    case ":method":
      return facts.method;
    case ":authority":
    case "host":
      return facts.host;
    case ":scheme":
      return schemeOf(peer, facts);
    default:
      return facts.header(name);
  }
}

/** What the target says; else what X-Forwarded-Proto does, where it is a scheme; else what the connection is. */
function schemeOf(peer: Peer, facts: HttpFacts): string {
  const target = facts.header(":scheme")?.[0];
  if (target !== undefined) {
    return target;
  }
  const told = facts.header("x-forwarded-proto")?.[0]?.toLowerCase();
  return told === "http" || told === "https" ? told : peer.principal === null ? "http" : "https";
}

function claimTest(path: readonly string[], values: readonly string[]): Test {
  const patterns = new PatternSet(values);
  return (_, request) => {
    const claims = request?.facts.auth ?? null;
    return claims !== null && matchesClaim(claims, path, patterns);
  };
}

/** Attribute of a field of a source or operation, by its positive name. */
export const FIELD_ATTRIBUTES: Readonly<Record<string, Attribute>> = {
  principals: { kind: "source.principal" },
  requestPrincipals: { kind: "request.auth.principal" },
  namespaces: { kind: "source.namespace" },
  serviceAccounts: { kind: "source.serviceAccount" },
  trustDomains: { kind: "source.trustDomain" },
  ipBlocks: { kind: "source.ip" },
  remoteIpBlocks: { kind: "remote.ip" },
  hosts: { kind: "hosts" },
  ports: { kind: "destination.port" },
  methods: { kind: "methods" },
  paths: { kind: "paths" },
};

/** True where no value of the list is anything but a plain text. */
export const allExact = (values: readonly string[]): boolean =>
  values.every((value) => parsePattern(value).kind === "exact");
