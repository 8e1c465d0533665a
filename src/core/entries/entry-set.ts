/** `kind: EntrySet`: registration entries as a file says them, with templates. One set is one owner of its entries. */
import type { Issue } from "../base/errors.ts";
import {
  boolean,
  duration,
  list,
  object,
  oneOf,
  optional,
  type Reader,
  record,
  refined,
  required,
  type Shape,
  string,
  validate,
} from "../base/validate.ts";
import type { YamlDocument } from "../base/yaml.ts";
import type { EntryDraft, Labels } from "./entry.ts";

export interface EntrySet {
  readonly name: string;
  /** Every entry the set asks for, templates filled in; each carries the set's labels and its name. */
  readonly entries: readonly DraftAt[];
}

/** A draft with the place in the document where it comes from. */
export interface DraftAt {
  readonly draft: EntryDraft;
  readonly path: readonly (string | number)[];
}

/** The label that says which set an entry belongs to. INVARIANT: applying a set changes and deletes no entry of another. */
export const SET_LABEL = "everyhop.dev/set";

/** A template that is filled in with several lists makes an entry for each combination, at most this many. */
const MAX_EXPANDED = 10_000;

const FIELDS = {
  id: optional(string()),
  spiffeId: optional(string()),
  parentId: optional(string()),
  /** The entry is a node alias: its parent is the server, its selectors are a node's. */
  node: optional(boolean()),
  selectors: optional(list(string(), { min: 1 })),
  x509SvidTtl: optional(duration(1_000)),
  jwtSvidTtl: optional(duration(1_000)),
  federatesWith: optional(list(string())),
  admin: optional(boolean()),
  downstream: optional(boolean()),
  expiresAt: optional(
    refined(string({ what: "a time" }), (text, at) => {
      const ms = Date.parse(text);
      return Number.isNaN(ms) ? at.fault(`\`${text}\` is not a time`, "write it as `2030-01-31T12:00:00Z`") : ms;
    }),
  ),
  dnsNames: optional(list(string())),
  hint: optional(string()),
  storeSvid: optional(boolean()),
  disableX509SvidPrefetch: optional(boolean()),
  labels: optional(record(string())),
} as const;

const template = object(FIELDS);
type Given = NonNullable<ReturnType<typeof template.read>>;

/** A value, or several: an entry for each. */
const values: Shape<readonly string[]> = {
  read(value, at) {
    const many = list(string(), { min: 1 });
    return typeof value === "string" ? [value] : many.read(value, at);
  },
};

const item = object({ ...FIELDS, template: optional(string()), with: optional(record(values)) });
type Item = NonNullable<ReturnType<typeof item.read>>;

const shape = object({
  apiVersion: required(oneOf("everyhop.dev/v1")),
  kind: required(oneOf("EntrySet")),
  metadata: required(
    object({
      name: required(
        string({
          pattern: /^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/,
          what: "a name (lower-case letters, digits, `-`, `.`)",
        }),
      ),
      labels: optional(record(string())),
    }),
  ),
  defaults: optional(template),
  templates: optional(record(template)),
  entries: required(list(item)),
});

/** Reads one document. What the drafts say is checked by `validateEntry`, as for any other entry. */
export function parseEntrySet(document: YamlDocument): {
  readonly set: EntrySet | null;
  readonly issues: readonly Issue[];
} {
  const { value: given, issues } = validate(shape, document);
  if (given === undefined) {
    return { set: null, issues };
  }
  const expanded = validate({ read: (_value, at) => expand(given, at) }, document);
  return { set: expanded.value ?? null, issues: expanded.issues };
}

function expand(given: NonNullable<ReturnType<typeof shape.read>>, at: Reader): EntrySet {
  const { name, labels: ofSet = {} } = given.metadata;
  const entries: DraftAt[] = [];
  for (const [index, one] of given.entries.entries()) {
    const here = at.into("entries").into(index);
    const named = one.template === undefined ? {} : own(given.templates ?? {}, one.template);
    if (named === undefined) {
      here.into("template").fault(`there is no template \`${one.template}\``, known(given.templates ?? {}));
      continue;
    }
    const { template: _template, with: fillings = {}, ...fields } = one;
    const labels = { ...ofSet, ...given.defaults?.labels, ...named.labels, ...fields.labels, [SET_LABEL]: name };
    const merged = { ...given.defaults, ...named, ...fields, labels };
    for (const filling of combinations(fillings, here)) {
      const draft = fill(merged, filling, one, here);
      if (draft !== undefined) {
        entries.push({ draft, path: here.path });
      }
    }
  }
  return { name, entries };
}

const own = <T>(of: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(of, name) ? of[name] : undefined;

const known = (of: Readonly<Record<string, unknown>>): string =>
  Object.keys(of).length === 0 ? "the set has no `templates`" : `there are: ${Object.keys(of).join(", ")}`;

type Filling = Readonly<Record<string, string>>;

/** Every combination of the values given. */
function combinations(fillings: Readonly<Record<string, readonly string[]>>, at: Reader): readonly Filling[] {
  const count = Object.values(fillings).reduce((product, each) => product * each.length, 1);
  if (count > MAX_EXPANDED) {
    at.into("with").fault(`makes ${count} entries; at most ${MAX_EXPANDED} come from one item`);
    return [];
  }
  return Object.entries(fillings).reduce<Filling[]>(
    (before, [name, each]) => before.flatMap((filling) => each.map((value) => ({ ...filling, [name]: value }))),
    [{}],
  );
}

/** The draft with `{name}` replaced everywhere. Undefined, and reported, where a name has no value. */
function fill(given: Given, filling: Filling, { with: fillings }: Item, at: Reader): EntryDraft | undefined {
  const used = new Set<string>();
  const missing = new Set<string>();
  const text = (value: string): string =>
    value.replace(/\{([A-Za-z_][A-Za-z0-9_-]*)\}/g, (whole, name: string) => {
      const found = own(filling, name);
      (found === undefined ? missing : used).add(name);
      return found ?? whole;
    });
  const { x509SvidTtl, jwtSvidTtl, expiresAt, node, labels = {}, ...rest } = given;
  const texts = (many: readonly string[] | undefined) => many?.map(text);
  const spiffeId = text(rest.spiffeId ?? "");
  const parentId = node === true ? serverOf(spiffeId) : text(rest.parentId ?? "");
  const draft: EntryDraft = defined({
    id: rest.id === undefined ? undefined : text(rest.id),
    spiffeId,
    parentId,
    selectors: texts(rest.selectors) ?? [],
    x509SvidTtlMs: x509SvidTtl,
    jwtSvidTtlMs: jwtSvidTtl,
    federatesWith: texts(rest.federatesWith),
    admin: rest.admin,
    downstream: rest.downstream,
    expiresAtMs: expiresAt,
    dnsNames: texts(rest.dnsNames),
    hint: rest.hint === undefined ? undefined : text(rest.hint),
    storeSvid: rest.storeSvid,
    disableX509SvidPrefetch: rest.disableX509SvidPrefetch,
    labels: Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, text(value)])) as Labels,
  });
  for (const name of missing) {
    at.fault(`\`{${name}}\` has no value`, `give it in \`with: {${name}: …}\``);
  }
  const idle = Object.keys(fillings ?? {}).find((name) => !used.has(name));
  if (idle !== undefined) {
    at.into("with").keyFault(
      idle,
      `\`${idle}\` stands nowhere in the template`,
      `write \`{${idle}}\` where it belongs`,
    );
  }
  return missing.size > 0 || idle !== undefined ? undefined : draft;
}

const serverOf = (spiffeId: string): string => `${/^spiffe:\/\/[^/]*/.exec(spiffeId)?.[0] ?? "spiffe://"}/spire/server`;

function defined<T extends object>(given: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as never;
}
