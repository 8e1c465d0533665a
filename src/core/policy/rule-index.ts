/**
 * The rules of one action, so arranged that the first one that matches is found without walking all of them: each rule
 * is filed under the rarest thing it asks for. What only the connection decides is looked up once per connection.
 */
import type { Visitor } from "../base/radix.ts";
import type { OpenRule, Peer } from "./facts.ts";
import type { CompiledRule, Field, FieldTest, Layer } from "./rules.ts";
import { type Key, keysOf, makeSlot, type Slot } from "./slots.ts";
import { type HttpView, isPeerAttribute, type Test, type TestContext } from "./tests.ts";

/** No rule. */
export const NONE = -1;

/** Fewer rules than this are walked. */
const FEW = 4;

export class RuleIndex implements Visitor {
  /** In the order they are tried. */
  readonly rules: readonly CompiledRule[];
  /** What connections decide about rule `i`, apart from what requests do. */
  readonly #parts: readonly RuleParts[];
  readonly #connectionSlots: readonly Slot[];
  readonly #requestSlots: readonly Slot[];
  /** Rules without a key: those of which a connection decides something, and the others. */
  readonly #connectionRest: readonly number[];
  readonly #requestRest: readonly number[];

  // The look-up under way: deciding never waits, so that one is enough.
  #best = 0;
  #peer: Peer | null = null;
  #request: HttpView | null = null;

  constructor(rules: readonly CompiledRule[], layer: Layer, trustDomains: readonly string[]) {
    this.rules = rules;
    this.#parts = rules.map((rule, id) => partsOf(rule, id, layer));
    const filed = fileRules(rules, layer, trustDomains);
    this.#connectionSlots = filed.slots.filter((slot) => slot.perConnection);
    this.#requestSlots = filed.slots.filter((slot) => !slot.perConnection);
    this.#connectionRest = filed.rest.filter((id) => this.#parts[id]!.asksConnection);
    this.#requestRest = filed.rest.filter((id) => !this.#parts[id]!.asksConnection);
  }

  /** HOT: the first rule that matches, or NONE. `open` is what `openFor` gave for this peer. */
  first(open: readonly OpenRule[], peer: Peer, request: HttpView | null): number {
    this.#best = this.rules.length;
    for (let index = 0; index < open.length; index++) {
      const { id, requestTests } = open[index]!;
      if (requestTests === null ? matchesRule(this.rules[id]!, peer, request) : allHold(requestTests, peer, request)) {
        this.#best = id;
        break;
      }
    }
    this.#peer = peer;
    this.#request = request;
    this.visit(this.#requestRest);
    for (let index = 0; index < this.#requestSlots.length; index++) {
      this.#requestSlots[index]!.visit(peer, request, this);
    }
    return this.#best === this.rules.length ? NONE : this.#best;
  }

  /** HOT: tests candidates, which are in ascending order, up to the best found so far. */
  visit(ids: readonly number[]): void {
    for (let index = 0; index < ids.length; index++) {
      const id = ids[index]!;
      if (id >= this.#best) {
        return;
      }
      if (matchesRule(this.rules[id]!, this.#peer!, this.#request)) {
        this.#best = id;
        return;
      }
    }
  }

  /** The rules that this connection leaves open, in order; those filed under what requests bring are not in it. */
  openFor(peer: Peer): readonly OpenRule[] {
    const candidates = new Set(this.#connectionRest);
    const collector: Visitor = {
      visit: (ids) => {
        for (const id of ids) {
          candidates.add(id);
        }
      },
    };
    for (const slot of this.#connectionSlots) {
      slot.visit(peer, null, collector);
    }
    const open: OpenRule[] = [];
    for (const id of [...candidates].sort((a, b) => a - b)) {
      const parts = this.#parts[id]!;
      if (isOpen(parts, peer)) {
        open.push(parts);
        if (parts.requestTests?.length === 0) {
          // It matches every request of this connection: no later rule is ever reached.
          break;
        }
      }
    }
    return open;
  }
}

/** A rule as a connection sees it. */
interface RuleParts extends OpenRule {
  readonly asksConnection: boolean;
  /** Per alternative, the tests that only the connection decides. */
  readonly from: readonly (readonly FieldTest[])[];
  readonly to: readonly (readonly FieldTest[])[];
  readonly when: readonly FieldTest[];
}

function partsOf(rule: CompiledRule, id: number, layer: Layer): RuleParts {
  const ofPeer = (test: FieldTest): boolean => isPeerAttribute(test.attribute, layer === "http");
  const peerTests = (tests: readonly FieldTest[]): readonly FieldTest[] => tests.filter(ofPeer);
  /** Of several alternatives that the connection alone decides nothing is left to choose per request. */
  const isSettled = (alternatives: CompiledRule["from"]): boolean =>
    alternatives.length <= 1 || alternatives.every((tests) => tests.every(ofPeer));
  const isSimple = isSettled(rule.from) && isSettled(rule.to);
  const all = [...rule.from.flat(), ...rule.to.flat(), ...rule.when];
  return {
    id,
    asksConnection: all.some(ofPeer),
    from: rule.from.map(peerTests),
    to: rule.to.map(peerTests),
    when: peerTests(rule.when),
    requestTests: isSimple ? all.filter((each) => !ofPeer(each)).map(({ test }) => test) : null,
  };
}

function isOpen(parts: RuleParts, peer: Peer): boolean {
  return matchesAny(parts.from, peer, null) && matchesAny(parts.to, peer, null) && matchesAll(parts.when, peer, null);
}

/** A way to find a rule: whatever it matches has one of the keys. */
interface Access {
  readonly keys: readonly { readonly key: Key; readonly field: Field }[];
  readonly cost: number;
}

/** The keys of each field, and how many rules ask for each. */
interface KeyCensus {
  readonly keys: ReadonlyMap<Field, readonly Key[] | null>;
  readonly frequency: ReadonlyMap<string, number>;
}

function countKeys(rules: readonly CompiledRule[], trustDomains: readonly string[]): KeyCensus {
  const frequency = new Map<string, number>();
  const keys = new Map<Field, readonly Key[] | null>();
  const count = (fields: readonly Field[], context: TestContext): void => {
    for (const field of fields) {
      const found = keysOf(field, context);
      keys.set(field, found);
      for (const { name } of found ?? []) {
        frequency.set(name, (frequency.get(name) ?? 0) + 1);
      }
    }
  };
  for (const { policy, from, to, when } of rules) {
    const context: TestContext = { policyNamespace: policy.namespace, trustDomains };
    for (const fields of [...from, ...to, when]) {
      count(fields, context);
    }
  }
  return { keys, frequency };
}

function fileRules(rules: readonly CompiledRule[], layer: Layer, trustDomains: readonly string[]) {
  const slots = new Map<string, Slot>();
  const rest: number[] = [];
  const census = countKeys(rules.length >= FEW ? rules : [], trustDomains);
  for (const [id, rule] of rules.entries()) {
    const access = bestAccess(rule, census, layer);
    if (access === null) {
      rest.push(id);
      continue;
    }
    const filed = new Set<string>();
    for (const { key, field } of access.keys) {
      if (!filed.has(key.name)) {
        filed.add(key.name);
        let slot = slots.get(key.slot);
        if (slot === undefined) {
          slot = makeSlot(field, layer === "http");
          slots.set(key.slot, slot);
        }
        slot.add(key, id);
      }
    }
  }
  return { slots: [...slots.values()], rest };
}

const cheaper = (a: Access | null, b: Access | null): Access | null =>
  a === null || (b !== null && b.cost < a.cost) ? b : a;

function bestAccess(rule: CompiledRule, census: KeyCensus, layer: Layer): Access | null {
  const ofField = (field: Field): Access | null => {
    const keys = census.keys.get(field) ?? null;
    if (keys === null) {
      return null;
    }
    // Of two that are as rare, what the connection brings is cheaper: it is looked up once.
    let cost = 0;
    for (const { name } of keys) {
      cost = Math.max(cost, census.frequency.get(name) ?? 1);
    }
    cost += isPeerAttribute(field.attribute, layer === "http") ? 0 : 0.5;
    return { keys: keys.map((key) => ({ key, field })), cost };
  };
  const cheapest = (fields: readonly Field[]): Access | null =>
    fields.reduce<Access | null>((best, field) => cheaper(best, ofField(field)), null);
  /** Every alternative has to have a key. */
  const ofAlternatives = (alternatives: readonly (readonly FieldTest[])[]): Access | null => {
    let all: Access | null = null;
    for (const fields of alternatives) {
      const access = cheapest(fields);
      if (access === null) {
        return null;
      }
      all = all === null ? access : { keys: [...all.keys, ...access.keys], cost: Math.max(all.cost, access.cost) };
    }
    return all;
  };
  return cheaper(cheaper(ofAlternatives(rule.from), ofAlternatives(rule.to)), cheapest(rule.when));
}

/** HOT. */
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

/** HOT. */
function allHold(tests: readonly Test[], peer: Peer, request: HttpView | null): boolean {
  for (let index = 0; index < tests.length; index++) {
    if (!tests[index]!(peer, request)) {
      return false;
    }
  }
  return true;
}
