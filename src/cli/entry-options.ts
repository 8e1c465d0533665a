/** The options of the `entry` commands, and what they say in SPIRE's messages. */
import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { type Entry, EntrySchema } from "../gen/spire/api/types/entry_pb.js";
import { FederatesWithMatch_MatchBehavior as FederatesMatch } from "../gen/spire/api/types/federateswith_pb.js";
import { SelectorMatch_MatchBehavior as SelectorMatch } from "../gen/spire/api/types/selector_pb.js";
import {
  each,
  label,
  oneOf,
  seconds,
  selector,
  spiffeId,
  text,
  time,
  trustDomain,
  type WireSelector,
  wireId,
} from "./arguments.ts";
import type { MeshOptions } from "./find-mesh.ts";

export interface Output extends MeshOptions {
  readonly json?: boolean;
}

export interface FieldOptions extends Output {
  readonly entryId?: string;
  readonly spiffeId?: SpiffeId;
  readonly parentId?: SpiffeId;
  readonly node?: boolean;
  readonly selector?: WireSelector[];
  readonly x509SvidTtl?: number;
  readonly jwtSvidTtl?: number;
  readonly federatesWith?: string[];
  readonly admin?: boolean;
  readonly downstream?: boolean;
  readonly entryExpiry?: bigint;
  readonly dns?: string[];
  readonly hint?: string;
  readonly storeSvid?: boolean;
  readonly label?: [string, string][];
}

export interface FilterOptions extends Output {
  readonly entryId?: string;
  readonly spiffeId?: SpiffeId;
  readonly parentId?: SpiffeId;
  readonly selector?: WireSelector[];
  readonly matchSelectorsOn: SelectorMatch;
  readonly federatesWith?: string[];
  readonly matchFederatesWithOn: FederatesMatch;
  readonly downstream?: boolean;
  readonly hint?: string;
  readonly label?: [string, string][];
}

export function withFields(command: Command): Command {
  return command
    .option("--entry-id <id>", "the entry's id (create: made where it is not given)")
    .option("--spiffe-id <id>", "the identity to hand out", spiffeId)
    .option("--parent-id <id>", "the agent, or the entry above, that may hand it out", spiffeId)
    .option("--selector <type:value>", "what the workload must be; may be given several times", each(selector))
    .option("--x509-svid-ttl <duration>", "life of its X.509-SVIDs (default: the server's)", seconds)
    .option("--jwt-svid-ttl <duration>", "life of its JWT-SVIDs (default: the server's)", seconds)
    .option("--federates-with <td>", "a trust domain whose bundle it gets; several times", each(trustDomain))
    .option("--admin", "it may use the server's admin methods")
    .option("--downstream", "it is a server below this one")
    .option("--entry-expiry <time>", "when the entry ends", time)
    .option("--dns <name>", "a DNS name in its certificates; several times", each(text))
    .option("--hint <text>", "tells the workload what the identity is for")
    .option("--store-svid", "its SVIDs go to a store")
    .option("--label <name=value>", "for people and tools to sort entries by; several times", each(label))
    .option("--json", "the entry as JSON");
}

const SELECTOR_MATCHES = {
  exact: SelectorMatch.MATCH_EXACT,
  any: SelectorMatch.MATCH_ANY,
  superset: SelectorMatch.MATCH_SUPERSET,
  subset: SelectorMatch.MATCH_SUBSET,
};

const FEDERATES_MATCHES = {
  exact: FederatesMatch.MATCH_EXACT,
  any: FederatesMatch.MATCH_ANY,
  superset: FederatesMatch.MATCH_SUPERSET,
  subset: FederatesMatch.MATCH_SUBSET,
};

export function withFilters(command: Command): Command {
  const how = "exact, any, superset or subset (default superset)";
  return command
    .option("--entry-id <id>", "the entry with that id")
    .option("--spiffe-id <id>", "entries of an identity", spiffeId)
    .option("--parent-id <id>", "entries under a parent", spiffeId)
    .option("--selector <type:value>", "entries by selector; may be given several times", each(selector))
    .option("--match-selectors-on <how>", how, oneOf(SELECTOR_MATCHES), SelectorMatch.MATCH_SUPERSET)
    .option("--federates-with <td>", "entries that federate; several times", each(trustDomain))
    .option("--match-federates-with-on <how>", how, oneOf(FEDERATES_MATCHES), FederatesMatch.MATCH_SUPERSET)
    .option("--downstream", "only servers below this one")
    .option("--hint <text>", "entries with that hint")
    .option("--label <name=value>", "entries with that label; several times: with all of them", each(label))
    .option("--json", "as JSON");
}

/** What the options set, by the names that a mask has for them. */
export function fieldsOf(options: FieldOptions): Readonly<Record<string, unknown>> {
  const given = {
    spiffeId: options.spiffeId === undefined ? undefined : wireId(options.spiffeId),
    parentId: options.parentId === undefined ? undefined : wireId(options.parentId),
    selectors: options.selector,
    x509SvidTtl: options.x509SvidTtl,
    jwtSvidTtl: options.jwtSvidTtl,
    federatesWith: options.federatesWith,
    admin: options.admin,
    downstream: options.downstream,
    expiresAt: options.entryExpiry,
    dnsNames: options.dns,
    hint: options.hint,
    storeSvid: options.storeSvid,
    labels: options.label === undefined ? undefined : Object.fromEntries(options.label),
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** An entry with these fields. */
export function entryMessage(fields: Readonly<Record<string, unknown>>): Entry {
  return create(EntrySchema, fields);
}

/** The filter of both ListEntries and CountEntries. */
export function filterOf(options: FilterOptions) {
  return {
    ...(options.spiffeId === undefined ? {} : { bySpiffeId: wireId(options.spiffeId) }),
    ...(options.parentId === undefined ? {} : { byParentId: wireId(options.parentId) }),
    ...(options.selector === undefined
      ? {}
      : { bySelectors: { selectors: options.selector, match: options.matchSelectorsOn } }),
    ...(options.federatesWith === undefined
      ? {}
      : { byFederatesWith: { trustDomains: options.federatesWith, match: options.matchFederatesWithOn } }),
    ...(options.hint === undefined ? {} : { byHint: options.hint }),
    ...(options.label === undefined ? {} : { byLabels: Object.fromEntries(options.label) }),
    ...(options.downstream === undefined ? {} : { byDownstream: options.downstream }),
  };
}
