/**
 * HOT: deciding a request or connection. Order as in Istio's sidecars: CUSTOM, then DENY, then ALLOW; AUDIT never
 * changes the decision, dry-run policies only say what they would have done.
 */
import { type IpAddress, parseIp } from "../base/cidr.ts";
import { asciiLower } from "../base/pattern.ts";
import type { CompiledPolicy, RuleSets } from "./compile.ts";
import { type HttpFacts, type Peer, type PeerFacts, peerOf } from "./facts.ts";
import type { MtlsMode } from "./resources.ts";
import { matchesRule, NONE, type RuleIndex } from "./rule-index.ts";
import type { HttpView } from "./tests.ts";
import type { Verdict } from "./verdict.ts";
import {
  ALLOWED,
  ASKED,
  AUDITED,
  DENIED,
  NO_ALLOW,
  NO_POLICY,
  type VerdictNode,
  WOULD_ALLOW,
  WOULD_DENY,
} from "./verdict-table.ts";

export type { HttpFacts, PeerFacts } from "./facts.ts";
export type { Verdict } from "./verdict.ts";

/** Decides one HTTP request. `request.path` must be what `normalizePath` gave and what will be forwarded. */
export function decideHttp(compiled: CompiledPolicy, peer: PeerFacts | Peer, request: HttpFacts): Verdict {
  const known = peerOf(peer);
  return decide(compiled.http, known, viewOf(request, known));
}

/** Decides one TCP connection. */
export function decideTcp(compiled: CompiledPolicy, peer: PeerFacts | Peer): Verdict {
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
  view.remote = remoteIp === undefined || remoteIp === null ? peer.remote : remoteOf(remoteIp, peer);
  return view;
}

/** One connection mostly tells of one client: its address is parsed once. */
function remoteOf(text: string, peer: Peer): IpAddress | null {
  if (peer.toldText !== text) {
    peer.toldText = text;
    peer.told = parseIp(text);
  }
  return peer.told;
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

/** Places of the lists in what a peer keeps open. */
const DENY = 0;
const ALLOW = 1;
const CUSTOM = 2;
const DRY_DENY = 3;
const DRY_ALLOW = 4;

function decide(sets: RuleSets, peer: Peer, request: HttpView | null): Verdict {
  if (peer.openOf !== sets) {
    peer.openOf = sets;
    peer.open.fill(null);
  }
  const denied = firstOf(sets.deny, DENY, peer, request);
  const allowed = denied !== NONE || !sets.denyByDefault ? NONE : firstOf(sets.allow, ALLOW, peer, request);
  const outcome = denied !== NONE ? DENIED : !sets.denyByDefault ? NO_POLICY : allowed !== NONE ? ALLOWED : NO_ALLOW;
  const deciding = denied !== NONE ? denied : allowed;
  if (sets.isPlain) {
    return sets.verdicts.plain(outcome, deciding);
  }
  let node = sets.verdicts.first(outcome, deciding);
  const custom = firstOf(sets.custom, CUSTOM, peer, request);
  if (custom !== NONE) {
    node = sets.verdicts.next(node, ASKED, custom);
  }
  if (sets.hasDryRun) {
    node = wouldBe(sets, node, outcome, peer, request);
  }
  for (let rule = 0; rule < sets.audit.rules.length; rule++) {
    if (matchesRule(sets.audit.rules[rule]!, peer, request)) {
      node = sets.verdicts.next(node, AUDITED, rule);
    }
  }
  return node.verdict;
}

/** HOT. */
function firstOf(rules: RuleIndex, place: number, peer: Peer, request: HttpView | null): number {
  if (rules.rules.length === 0) {
    return NONE;
  }
  let open = peer.open[place] ?? null;
  if (open === null) {
    open = rules.openFor(peer);
    peer.open[place] = open;
  }
  return rules.first(open, peer, request);
}

/** Adds the decision with every dry-run policy in force, where it is not the one in force. */
function wouldBe(
  sets: RuleSets,
  node: VerdictNode,
  outcome: number,
  peer: Peer,
  request: HttpView | null,
): VerdictNode {
  if (outcome === DENIED) {
    return node;
  }
  const denying = firstOf(sets.dryDeny, DRY_DENY, peer, request);
  if (denying !== NONE) {
    return sets.verdicts.next(node, WOULD_DENY, denying);
  }
  if (outcome === ALLOWED || !sets.dryDenyByDefault) {
    return node;
  }
  const allowing = firstOf(sets.dryAllow, DRY_ALLOW, peer, request);
  if (allowing !== NONE) {
    return sets.verdicts.next(node, WOULD_ALLOW, allowing);
  }
  return outcome === NO_ALLOW ? node : sets.verdicts.next(node, WOULD_DENY, NONE);
}
