/** `-matchSelectorsOn`, `-matchFederatesWithOn`. */
import { FederatesWithMatch_MatchBehavior as FederatesMatch } from "../../gen/spire/api/types/federateswith_pb.js";
import { SelectorMatch_MatchBehavior as SelectorMatch } from "../../gen/spire/api/types/selector_pb.js";
import { readSelector } from "./command.ts";
import { type Flags, type Given, text, texts, UsageError } from "./flags.ts";

const OPTIONS = "Options: exact, any, superset and subset";

export const SELECTOR_FLAGS: Flags = {
  selector: texts("A colon-delimited type:value selector. Can be used more than once"),
  matchSelectorsOn: text(`The match mode used when filtering by selectors. ${OPTIONS}`),
};

export const FEDERATES_FLAGS: Flags = {
  federatesWith: texts("SPIFFE ID of a trust domain an entry is federate with. Can be used more than once"),
  matchFederatesWithOn: text(`The match mode used when filtering by federates with. ${OPTIONS}`),
};

const SELECTOR_MATCHES: Readonly<Record<string, SelectorMatch>> = {
  exact: SelectorMatch.MATCH_EXACT,
  any: SelectorMatch.MATCH_ANY,
  superset: SelectorMatch.MATCH_SUPERSET,
  subset: SelectorMatch.MATCH_SUBSET,
};

const FEDERATES_MATCHES: Readonly<Record<string, FederatesMatch>> = {
  exact: FederatesMatch.MATCH_EXACT,
  any: FederatesMatch.MATCH_ANY,
  superset: FederatesMatch.MATCH_SUPERSET,
  subset: FederatesMatch.MATCH_SUBSET,
};

function matchOf<T>(matches: Readonly<Record<string, T>>, given: Given, name: string): T {
  const word = given.text(name) || "superset";
  const match = Object.hasOwn(matches, word) ? matches[word] : undefined;
  if (match === undefined) {
    throw new UsageError(`match behavior "${word}" unknown`);
  }
  return match;
}

/** Null where no selector was given. */
export function selectorMatch(given: Given) {
  const selectors = given.texts("selector").map(readSelector);
  return selectors.length === 0 ? null : { selectors, match: matchOf(SELECTOR_MATCHES, given, "matchSelectorsOn") };
}

export function federatesMatch(given: Given) {
  const trustDomains = [...given.texts("federatesWith")];
  return trustDomains.length === 0
    ? null
    : { trustDomains, match: matchOf(FEDERATES_MATCHES, given, "matchFederatesWithOn") };
}
