/**
 * Tables that find the rules a connection or request may match. A slot is one attribute: what rules ask of it goes in as
 * keys, and a look-up gives every rule one of whose keys fits. It may give too many (rules are tested in full), never
 * too few.
 */
import { type Cidr, parseCidr } from "../base/cidr.ts";
import { CidrTable } from "../base/cidr-table.ts";
import { asciiLower, type Pattern, parsePattern, toWire } from "../base/pattern.ts";
import { PatternTable } from "../base/pattern-table.ts";
import type { Visitor } from "../base/radix.ts";
import { claimAt, parseRequestPrincipal } from "./claims.ts";
import type { Peer } from "./facts.ts";
import { isOneSegment, segmentsAfter } from "./identity.ts";
import { isTemplate, PathTemplate } from "./path-template.ts";
import type { Field } from "./rules.ts";
import { type HttpView, headerLines, isPeerAttribute, type TestContext } from "./tests.ts";
import { expandPrincipals, expandTrustDomains } from "./trust-domain.ts";

type TextKey = Exclude<Pattern, { readonly kind: "presence" }>;

/** Equal keys have equal names. */
export type Key = { readonly slot: string; readonly name: string } & (
  | { readonly pattern: TextKey }
  | { readonly block: Cidr }
);

const patternKey = (slot: string, pattern: TextKey): Key => ({
  slot,
  name: `${slot} ${pattern.kind} ${pattern.text}`,
  pattern,
});

const blockKey = (slot: string, block: Cidr): Key => ({
  slot,
  name: `${slot} ${block.words.join(".")}/${block.prefixLength}`,
  block,
});

/**
 * The keys of a field: whatever meets it has one of them. Null where there are none (negations, presence, wildcards that
 * no table has).
 */
export function keysOf(field: Field, context: TestContext): readonly Key[] | null {
  if (field.negated) {
    return null;
  }
  const slot = slotName(field);
  const patterns = keyPatterns(field, context);
  const keys: Key[] = [];
  for (const pattern of patterns ?? []) {
    if (pattern === null || pattern.kind === "presence") {
      return null;
    }
    keys.push(patternKey(slot, pattern));
  }
  if (patterns !== undefined) {
    return keys;
  }
  const blocks = keyBlocks(field);
  for (const block of blocks ?? []) {
    if (block === null) {
      return null;
    }
    keys.push(blockKey(slot, block));
  }
  return blocks === undefined ? null : keys;
}

function slotName({ attribute }: Field): string {
  switch (attribute.kind) {
    case "header":
      return `header ${attribute.name}`;
    case "claim":
      return `claim ${JSON.stringify(attribute.path)}`;
    case "request.auth.audiences":
      return 'claim ["aud"]';
    case "request.auth.presenter":
      return 'claim ["azp"]';
    default:
      return attribute.kind;
  }
}

const exact = (text: string): TextKey => ({ kind: "exact", text });

/** Joins an issuer and a subject, or a namespace and an account, to one text. */
const pair = (first: string, second: string): string => `${first}\n${second}`;

function keyPatterns({ attribute, values }: Field, context: TestContext): readonly (Pattern | null)[] | undefined {
  switch (attribute.kind) {
    case "source.principal":
      return expandPrincipals(values, context.trustDomains).map(parsePattern);
    case "source.namespace":
      return values.map((value) => (isOneSegment(value) ? exact(value) : null));
    case "source.serviceAccount":
      return values.map((value) => {
        const slash = value.indexOf("/");
        return exact(pair(slash === -1 ? context.policyNamespace : value.slice(0, slash), value.slice(slash + 1)));
      });
    case "source.trustDomain":
      return expandTrustDomains(values, context.trustDomains).map((value) =>
        isOneSegment(value) ? exact(value) : null,
      );
    case "destination.port":
      return values.map((value) => exact(String(Number(value))));
    case "hosts":
      return values.map((value) => parsePattern(toWire(asciiLower(value))));
    case "paths":
      return values.map((value) =>
        isTemplate(value)
          ? { kind: "prefix", text: new PathTemplate(value).literalPrefix }
          : parsePattern(toWire(value)),
      );
    case "methods":
      return values.map((value) => parsePattern(toWire(value)));
    case "header":
      return attribute.name === null ? undefined : values.map((value) => parsePattern(toWire(value)));
    case "claim":
      return attribute.path === null ? undefined : values.map(parsePattern);
    case "connection.sni":
    case "request.auth.audiences":
    case "request.auth.presenter":
      return values.map(parsePattern);
    case "request.auth.principal":
      return values.map((value) => {
        const { issuer, subject } = parseRequestPrincipal(value);
        return issuer.kind === "exact" && subject.kind === "exact" ? exact(pair(issuer.text, subject.text)) : null;
      });
    default:
      return undefined;
  }
}

function keyBlocks({ attribute, values }: Field): readonly (Cidr | null)[] | undefined {
  switch (attribute.kind) {
    case "source.ip":
    case "remote.ip":
    case "destination.ip":
      return values.map(parseCidr);
    default:
      return undefined;
  }
}

/** One table. */
export interface Slot {
  /** Looked up once per connection; else once per request. */
  readonly perConnection: boolean;
  add(key: Key, id: number): void;
  /** HOT for slots that are looked up per request: no allocation. `request` is null on TCP. */
  visit(peer: Peer, request: HttpView | null, visitor: Visitor): void;
}

type Lookup = (peer: Peer, request: HttpView | null, table: PatternTable, blocks: CidrTable, visitor: Visitor) => void;

export function makeSlot(field: Field, isHttp: boolean): Slot {
  const table = new PatternTable();
  const blocks = new CidrTable();
  const lookup = lookupOf(field);
  return {
    perConnection: isPeerAttribute(field.attribute, isHttp),
    add(key, id) {
      if ("pattern" in key) {
        table.add(key.pattern, id);
      } else {
        blocks.add(key.block, id);
      }
    },
    visit: (peer, request, visitor) => lookup(peer, request, table, blocks, visitor),
  };
}

function lookupOf({ attribute }: Field): Lookup {
  switch (attribute.kind) {
    case "source.principal":
      return (peer, _, table, __, visitor) => visitText(peer.principal, table, visitor);
    case "source.namespace":
      return (peer, _, table, __, visitor) => {
        for (const namespace of namespacesOf(peer)) {
          table.visit(namespace, visitor);
        }
      };
    case "source.serviceAccount":
      return (peer, _, table, __, visitor) => visitServiceAccounts(peer, table, visitor);
    case "source.trustDomain":
      return (peer, _, table, __, visitor) => visitText(peer.principal?.split("/", 1)[0] ?? null, table, visitor);
    case "destination.port":
      return (peer, _, table, __, visitor) => table.visit(String(peer.port), visitor);
    case "connection.sni":
      return (peer, _, table, __, visitor) => visitText(peer.sni, table, visitor);
    case "hosts":
      return (_, request, table, __, visitor) => visitText(request?.host ?? null, table, visitor);
    case "paths":
      return (_, request, table, __, visitor) => visitText(request?.path ?? null, table, visitor);
    case "methods":
      return (_, request, table, __, visitor) => visitText(request?.facts.method ?? null, table, visitor);
    case "header":
      return headerLookup(attribute.name ?? "");
    case "claim":
      return claimLookup(attribute.path ?? []);
    case "request.auth.audiences":
      return claimLookup(["aud"]);
    case "request.auth.presenter":
      return claimLookup(["azp"]);
    case "request.auth.principal":
      return (_, request, table, __, visitor) => visitRequestPrincipal(request, table, visitor);
    case "source.ip":
      return (peer, _, __, blocks, visitor) => void (peer.source !== null && blocks.visit(peer.source, visitor));
    case "destination.ip":
      return (peer, _, __, blocks, visitor) =>
        void (peer.destination !== null && blocks.visit(peer.destination, visitor));
    case "remote.ip":
      return (peer, request, __, blocks, visitor) => {
        const remote = request === null ? peer.remote : request.remote;
        if (remote !== null) {
          blocks.visit(remote, visitor);
        }
      };
    case "metadata":
      return () => {};
  }
}

function visitText(text: string | null, table: PatternTable, visitor: Visitor): void {
  if (text !== null) {
    table.visit(text, visitor);
  }
}

/** Distinct, so that no rule is found twice by the same key. */
const namespacesOf = (peer: Peer): ReadonlySet<string> =>
  new Set(peer.principal === null ? [] : segmentsAfter(peer.principal, "ns"));

function visitServiceAccounts(peer: Peer, table: PatternTable, visitor: Visitor): void {
  const accounts = new Set(peer.principal === null ? [] : segmentsAfter(`${peer.principal}/`, "sa"));
  for (const namespace of namespacesOf(peer)) {
    for (const account of accounts) {
      table.visit(pair(namespace, account), visitor);
    }
  }
}

function headerLookup(name: string): Lookup {
  return (peer, request, table, _, visitor) => {
    const lines = request === null ? null : headerLines(name, peer, request.facts);
    if (typeof lines === "string") {
      table.visit(lines, visitor);
      return;
    }
    for (let index = 0; lines !== null && index < lines.length; index++) {
      table.visit(lines[index]!, visitor);
    }
  };
}

function claimLookup(path: readonly string[]): Lookup {
  return (_, request, table, __, visitor) => {
    const claims = request?.facts.auth ?? null;
    const value = claims === null ? null : claimAt(claims, path);
    if (typeof value === "string") {
      table.visit(value, visitor);
      return;
    }
    for (let index = 0; Array.isArray(value) && index < value.length; index++) {
      const element: unknown = value[index];
      if (typeof element === "string") {
        table.visit(element, visitor);
      }
    }
  };
}

function visitRequestPrincipal(request: HttpView | null, table: PatternTable, visitor: Visitor): void {
  const claims = request?.facts.auth ?? null;
  const { iss, sub } = claims ?? {};
  if (typeof iss === "string" && typeof sub === "string") {
    table.visit(pair(iss, sub), visitor);
  }
}
