/**
 * For a denial: the smallest changes of the resources in force that would have allowed the request, as patches. Each is
 * tried out on the same request before it is proposed.
 *
 * Smallest means: every resource in the list stands in the way by itself (the PeerAuthentication that refused, the rule
 * that refused the token, each DENY policy that matches, and one ALLOW policy where none lets the request in); and in
 * each the fewest fields are changed, up to two of a rule, beyond that a rule of its own is added.
 */
import { authenticate } from "../authenticate.ts";
import type { CompiledPolicy } from "../compile.ts";
import type { HttpFacts, PeerFacts } from "../facts.ts";
import { httpFacts } from "../received.ts";
import { matchesRule } from "../rule-index.ts";
import type { Verdict } from "../verdict.ts";
import { allowChange } from "./allow.ts";
import { denyChanges } from "./deny.ts";
import { peerChange } from "./peer.ts";
import { compiledRules, layerOf, type NearestMiss, type Scene, sceneOf } from "./scene.ts";
import { type TokenReplay, tokenChange } from "./token.ts";

export type { NearestMiss } from "./scene.ts";
export type { TokenReplay } from "./token.ts";

export interface Denied {
  readonly compiled: CompiledPolicy;
  readonly peer: PeerFacts;
  /** Null on TCP. */
  readonly request: HttpFacts | null;
  /** The connection was refused before a request was read: what requests would have met is not known. */
  readonly isUnread?: boolean;
  readonly reason: Verdict["reason"];
  /** Where the request can be gone through once more from the start. */
  readonly replay?: TokenReplay | null;
}

/** The changes that together would have allowed the request; empty where there are none. One is a nearest miss. */
export function nearestChanges(denied: Denied): readonly NearestMiss[] {
  const { compiled, peer, request, reason, replay = null } = denied;
  const scene = sceneOf(compiled, peer, request);
  switch (reason) {
    case "no-allow-matched":
    case "deny-rule":
      return policyChanges(scene) ?? [];
    case "plaintext-refused":
      return afterPeer(scene, denied);
    case "bad-token":
      return replay === null ? [] : (afterToken(scene, replay) ?? []);
    default:
      return [];
  }
}

export const onlyOne = <T>(changes: readonly T[]): T | null => (changes.length === 1 ? changes[0]! : null);

/** What else stands in the way once the connection is taken. */
function afterPeer(scene: Scene, { compiled, peer, isUnread, replay }: Denied): readonly NearestMiss[] {
  const change = peerChange(scene);
  if (change === null) {
    return [];
  }
  if (replay == null) {
    const rest = isUnread === true ? [] : policyChanges(scene);
    return rest === null ? [] : [change, ...rest];
  }
  const received = replay.received();
  const result = authenticate(compiled.tokens, received, replay.nowMs, replay.keysOf);
  const rest = result.ok
    ? policyChanges(sceneOf(compiled, peer, httpFacts(received, result.claims)))
    : afterToken(scene, replay);
  return rest === null ? [] : [change, ...rest];
}

function afterToken(scene: Scene, replay: TokenReplay): readonly NearestMiss[] | null {
  const taken = tokenChange(scene, replay);
  const rest = taken === null ? null : policyChanges(sceneOf(scene.compiled, scene.peerFacts, taken.facts));
  return taken === null || rest === null ? null : [taken.change, ...rest];
}

/** Null where the policies cannot be made to allow it. */
function policyChanges(scene: Scene): readonly NearestMiss[] | null {
  const denying = denyChanges(scene);
  if (denying === null) {
    return null;
  }
  const sets = layerOf(scene) === "tcp" ? scene.compiled.tcp : scene.compiled.http;
  if (!sets.denyByDefault || isAllowed(scene)) {
    return denying;
  }
  const allowing = allowChange(scene);
  return allowing === null ? null : [...denying, allowing];
}

const isAllowed = (scene: Scene): boolean =>
  compiledRules(scene, "allow").some((rule) => matchesRule(rule, scene.peer, scene.view));
