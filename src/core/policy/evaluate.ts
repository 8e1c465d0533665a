/**
 * HOT: deciding a request or connection. Order as in Istio's sidecars: CUSTOM, then DENY, then ALLOW; AUDIT never
 * changes the decision, dry-run policies only say what they would have done.
 */
import { parseIp } from "../base/cidr.ts";
import { asciiLower } from "../base/pattern.ts";
import type { CompiledPolicy, RuleSets } from "./compile.ts";
import { type HttpFacts, type Peer, type PeerFacts, peerOf } from "./facts.ts";
import type { MtlsMode } from "./resources.ts";
import type { CompiledRule, FieldTest } from "./rules.ts";
import type { HttpView } from "./tests.ts";
import type { Verdict } from "./verdict.ts";
import { ALLOWED, DENIED, NO_ALLOW, NO_POLICY, NONE } from "./verdict-table.ts";

export type { HttpFacts, PeerFacts } from "./facts.ts";
export type { Verdict } from "./verdict.ts";

/** Decides one HTTP request. `request.path` must be what `normalizePath` gave and what will be forwarded. */
export function decideHttp(compiled: CompiledPolicy, peer: PeerFacts, request: HttpFacts): Verdict {
  const known = peerOf(peer);
  return decide(compiled.http, known, viewOf(request, known));
}

/** Decides one TCP connection. */
export function decideTcp(compiled: CompiledPolicy, peer: PeerFacts): Verdict {
  return decide(compiled.tcp, peerOf(peer), null);
}

/** How a workload port takes connections: STRICT refuses plaintext, DISABLE terminates no mutual TLS. */
export function mtlsMode(compiled: CompiledPolicy, port: number): MtlsMode {
  return compiled.mtls.perPort.get(port) ?? compiled.mtls.mode;
}

/** One view is enough: deciding never waits. */
const view: HttpView = { facts: null as unknown as HttpFacts, path: null, host: null, remote: null };

export function viewOf(request: HttpFacts, peer: Peer): HttpView {
  const { path, host, remoteIp } = request;
  view.facts = request;
  view.path = path === null ? null : withoutQuery(path);
  view.host = host === null ? null : asciiLower(host);
  view.remote = remoteIp === undefined || remoteIp === null ? peer.remote : parseIp(remoteIp);
  return view;
}

function withoutQuery(path: string): string {
  for (let at = 0; at < path.length; at++) {
    const code = path.charCodeAt(at);
    if (code === 0x3f || code === 0x23) {
      return path.slice(0, at);
    }
  }
  return path;
}

function decide(sets: RuleSets, peer: Peer, request: HttpView | null): Verdict {
  const denied = firstMatch(sets.deny, peer, request);
  const allowed = denied !== NONE || !sets.denyByDefault ? NONE : firstMatch(sets.allow, peer, request);
  const outcome = denied !== NONE ? DENIED : !sets.denyByDefault ? NO_POLICY : allowed !== NONE ? ALLOWED : NO_ALLOW;
  const rule = denied !== NONE ? denied : allowed;
  if (!sets.hasDryRun && sets.custom.length === 0 && sets.audit.length === 0) {
    return sets.verdicts.plain(outcome, rule);
  }
  const custom = firstMatch(sets.custom, peer, request);
  const audits = allMatches(sets.audit, peer, request);
  const dry = sets.hasDryRun ? wouldBe(sets, peer, request, outcome) : null;
  return custom === NONE && audits.length === 0 && dry === null
    ? sets.verdicts.plain(outcome, rule)
    : sets.verdicts.combined(outcome, rule, custom, audits, dry);
}

/** The decision with every dry-run policy in force; null where it is the one in force. */
function wouldBe(
  sets: RuleSets,
  peer: Peer,
  request: HttpView | null,
  outcome: number,
): { readonly denied: boolean; readonly rule: CompiledRule | null } | null {
  if (outcome === DENIED) {
    return null;
  }
  const denying = firstMatch(sets.dryDeny, peer, request);
  if (denying !== NONE) {
    return { denied: true, rule: sets.dryDeny[denying] ?? null };
  }
  if (outcome === ALLOWED || !sets.dryDenyByDefault) {
    return null;
  }
  const allowing = firstMatch(sets.dryAllow, peer, request);
  if (allowing !== NONE) {
    return { denied: false, rule: sets.dryAllow[allowing] ?? null };
  }
  return outcome === NO_ALLOW ? null : { denied: true, rule: null };
}

function firstMatch(rules: readonly CompiledRule[], peer: Peer, request: HttpView | null): number {
  for (let index = 0; index < rules.length; index++) {
    if (matchesRule(rules[index]!, peer, request)) {
      return index;
    }
  }
  return NONE;
}

const NO_MATCHES: readonly number[] = [];

function allMatches(rules: readonly CompiledRule[], peer: Peer, request: HttpView | null): readonly number[] {
  let matches: number[] | null = null;
  for (let index = 0; index < rules.length; index++) {
    if (matchesRule(rules[index]!, peer, request)) {
      matches ??= [];
      matches.push(index);
    }
  }
  return matches ?? NO_MATCHES;
}

export function matchesRule(rule: CompiledRule, peer: Peer, request: HttpView | null): boolean {
  return (
    matchesAny(rule.from, peer, request) && matchesAny(rule.to, peer, request) && matchesAll(rule.when, peer, request)
  );
}

function matchesAny(alternatives: readonly (readonly FieldTest[])[], peer: Peer, request: HttpView | null): boolean {
  if (alternatives.length === 0) {
    return true;
  }
  for (let index = 0; index < alternatives.length; index++) {
    if (matchesAll(alternatives[index]!, peer, request)) {
      return true;
    }
  }
  return false;
}

function matchesAll(tests: readonly FieldTest[], peer: Peer, request: HttpView | null): boolean {
  for (let index = 0; index < tests.length; index++) {
    if (!tests[index]!.test(peer, request)) {
      return false;
    }
  }
  return true;
}
