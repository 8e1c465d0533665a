/** SPIRE's set filters, on entries and agents. SPEC: spire/api/types/selector.proto. */
import { EveryhopError } from "../../core/base/errors.ts";
import type { SelectorMatch } from "../../gen/spire/api/types/selector_pb.js";
import { SelectorMatch_MatchBehavior as Match } from "../../gen/spire/api/types/selector_pb.js";
import { selectorFromWire } from "./wire.ts";

type SetFilter = (candidate: readonly string[]) => boolean;

/** Federation and selector matches have the same behaviours under the same numbers. */
export function setFilter(wanted: readonly string[], behaviour: number, what: string): SetFilter {
  const set = new Set(wanted);
  if (set.size === 0) {
    throw new EveryhopError("invalid-argument", `malformed ${what} filter: it is empty`);
  }
  const all = (candidate: readonly string[]) => candidate.length > 0 && candidate.every((one) => set.has(one));
  const holds = (candidate: readonly string[]) => wanted.every((one) => candidate.includes(one));
  switch (behaviour) {
    case Match.MATCH_EXACT:
      return (candidate) => all(candidate) && holds(candidate);
    case Match.MATCH_SUBSET:
      return all;
    case Match.MATCH_SUPERSET:
      return holds;
    case Match.MATCH_ANY:
      return (candidate) => candidate.some((one) => set.has(one));
    default:
      throw new EveryhopError("invalid-argument", `unknown match behavior ${behaviour}`);
  }
}

export function selectorFilter(match: SelectorMatch): SetFilter {
  return setFilter(match.selectors.map(selectorFromWire), match.match, "selectors");
}
