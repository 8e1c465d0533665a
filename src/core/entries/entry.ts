import {
  pathOf,
  type SpiffeId,
  spiffeIdFault,
  type TrustDomain,
  trustDomainFault,
  trustDomainOf,
} from "../spiffe/id.ts";
import { dnsNameFault } from "../x509/dns-name.ts";
import { type Selector, selectorFault, selectorType } from "./selector.ts";

/** Who gets which identity, on whose word. The fields are SPIRE's; durations and times are in milliseconds. */
export interface RegistrationEntry {
  readonly id: string;
  readonly spiffeId: SpiffeId;
  /** The agent (or the entry above) that may hand it out; `spiffe://<trust domain>/spire/server` makes it a node alias. */
  readonly parentId: SpiffeId;
  /** Sorted, no duplicates. */
  readonly selectors: readonly Selector[];
  /** 0 is the default of the server. */
  readonly x509SvidTtlMs: number;
  readonly jwtSvidTtlMs: number;
  readonly federatesWith: readonly TrustDomain[];
  readonly admin: boolean;
  readonly downstream: boolean;
  /** Null is never. Not a security feature: an issued SVID lives out its own time. */
  readonly expiresAtMs: number | null;
  readonly dnsNames: readonly string[];
  /** One more with every update. */
  readonly revision: number;
  readonly storeSvid: boolean;
  readonly hint: string;
  readonly createdAtMs: number;
  readonly disableX509SvidPrefetch: boolean;
  readonly jwtSvidIncludeJti: boolean;
  /** For people and tools to sort entries by; they decide nothing. */
  readonly labels: Labels;
}

export type Labels = Readonly<Record<string, string>>;

/** An entry as an operator gives it. */
export interface EntryDraft {
  readonly id?: string;
  readonly spiffeId: string;
  readonly parentId: string;
  readonly selectors: readonly string[];
  readonly x509SvidTtlMs?: number;
  readonly jwtSvidTtlMs?: number;
  readonly federatesWith?: readonly string[];
  readonly admin?: boolean;
  readonly downstream?: boolean;
  readonly expiresAtMs?: number | null;
  readonly dnsNames?: readonly string[];
  readonly storeSvid?: boolean;
  readonly hint?: string;
  readonly disableX509SvidPrefetch?: boolean;
  readonly jwtSvidIncludeJti?: boolean;
  readonly labels?: Labels;
}

export interface EntryFault {
  readonly field: keyof EntryDraft;
  readonly message: string;
}

export type ValidatedEntry =
  | { readonly ok: true; readonly entry: RegistrationEntry }
  | { readonly ok: false; readonly faults: readonly EntryFault[] };

const MAX_ID = 255;
const MAX_HINT_BYTES = 1024;
const MAX_SELECTORS = 256;
const MAX_DNS_NAMES = 256;
/** Seconds travel as int32. */
const MAX_TTL_MS = (2 ** 31 - 1) * 1000;

export interface EntryContext {
  readonly trustDomain: TrustDomain;
  readonly now: number;
  /** The id where the draft has none; random, as a UUID. */
  readonly newId: string;
}

/** Checks a draft and makes an entry of it, revision 0. All faults are listed, each with its field. */
export function validateEntry(draft: EntryDraft, context: EntryContext): ValidatedEntry {
  const faults = [
    ...idFaults(draft, context.trustDomain),
    ...selectorFaults(draft),
    ...otherFaults(draft),
    ...labelFaults(draft.labels ?? {}),
  ];
  if (faults.length > 0) {
    return { ok: false, faults };
  }
  const entry: RegistrationEntry = {
    id: draft.id || context.newId,
    spiffeId: draft.spiffeId as SpiffeId,
    parentId: draft.parentId as SpiffeId,
    selectors: [...new Set(draft.selectors)].sort() as Selector[],
    x509SvidTtlMs: draft.x509SvidTtlMs ?? 0,
    jwtSvidTtlMs: draft.jwtSvidTtlMs ?? 0,
    federatesWith: [...new Set(draft.federatesWith ?? [])] as TrustDomain[],
    admin: draft.admin ?? false,
    downstream: draft.downstream ?? false,
    expiresAtMs: draft.expiresAtMs || null,
    dnsNames: draft.dnsNames ?? [],
    revision: 0,
    storeSvid: draft.storeSvid ?? false,
    hint: draft.hint ?? "",
    createdAtMs: context.now,
    disableX509SvidPrefetch: draft.disableX509SvidPrefetch ?? false,
    jwtSvidIncludeJti: draft.jwtSvidIncludeJti ?? false,
    labels: sorted(draft.labels ?? {}),
  };
  return { ok: true, entry };
}

function sorted(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** SPEC: SPIRE's rules: own trust domain, a path, and nothing under /spire but the server as parent. */
function* idFaults(draft: EntryDraft, trustDomain: TrustDomain): Generator<EntryFault> {
  if (draft.id !== undefined && draft.id !== "" && !(draft.id.length <= MAX_ID && /^[A-Za-z0-9._-]+$/.test(draft.id))) {
    yield { field: "id", message: `is not 1 to ${MAX_ID} of letters, digits, \`.\`, \`_\` and \`-\`` };
  }
  for (const field of ["spiffeId", "parentId"] as const) {
    const fault = memberFault(draft[field], trustDomain);
    if (fault !== null) {
      yield { field, message: fault };
    }
  }
  if (memberFault(draft.spiffeId, trustDomain) === null && isReserved(draft.spiffeId as SpiffeId)) {
    yield { field: "spiffeId", message: "is under `/spire`, which is kept for servers and agents" };
  }
  if (draft.spiffeId === draft.parentId) {
    yield { field: "parentId", message: "is the entry's own SPIFFE ID" };
  }
}

function memberFault(text: string, trustDomain: TrustDomain): string | null {
  const fault = spiffeIdFault(text);
  if (fault !== null) {
    return `is not a SPIFFE ID: ${fault}`;
  }
  const id = text as SpiffeId;
  if (trustDomainOf(id) !== trustDomain) {
    return `is not in the trust domain \`${trustDomain}\``;
  }
  return pathOf(id) === "" ? "has no path" : null;
}

function isReserved(id: SpiffeId): boolean {
  const path = pathOf(id);
  return path === "/spire" || path.startsWith("/spire/");
}

function* selectorFaults(draft: EntryDraft): Generator<EntryFault> {
  const { selectors } = draft;
  if (selectors.length === 0 || selectors.length > MAX_SELECTORS) {
    yield { field: "selectors", message: `needs 1 to ${MAX_SELECTORS} selectors, has ${selectors.length}` };
    return;
  }
  for (const selector of selectors) {
    const fault = selectorFault(selector);
    if (fault !== null) {
      yield { field: "selectors", message: `\`${selector.slice(0, 128)}\`: ${fault}` };
    }
  }
  if (draft.storeSvid === true && new Set(selectors.map((one) => selectorType(one as Selector))).size > 1) {
    yield { field: "storeSvid", message: "needs selectors of one type" };
  }
}

function* otherFaults(draft: EntryDraft): Generator<EntryFault> {
  for (const field of ["x509SvidTtlMs", "jwtSvidTtlMs"] as const) {
    const ttl = draft[field] ?? 0;
    if (!(Number.isInteger(ttl) && ttl >= 0 && ttl <= MAX_TTL_MS)) {
      yield { field, message: "is not a lifetime" };
    }
  }
  const { expiresAtMs = null } = draft;
  if (expiresAtMs !== null && !(Number.isSafeInteger(expiresAtMs) && expiresAtMs >= 0)) {
    yield { field: "expiresAtMs", message: "is not a time" };
  }
  for (const name of draft.federatesWith ?? []) {
    const fault = trustDomainFault(name);
    if (fault !== null) {
      yield { field: "federatesWith", message: `\`${name.slice(0, 128)}\`: ${fault}` };
    }
  }
  if ((draft.dnsNames?.length ?? 0) > MAX_DNS_NAMES) {
    yield { field: "dnsNames", message: `has more than ${MAX_DNS_NAMES} names` };
  }
  for (const [index, name] of draft.dnsNames?.entries() ?? []) {
    const fault = draft.dnsNames?.indexOf(name) === index ? dnsNameFault(name) : "comes twice";
    if (fault !== null) {
      yield { field: "dnsNames", message: `\`${name.slice(0, 128)}\` ${fault}` };
    }
  }
  if (Buffer.byteLength(draft.hint ?? "") > MAX_HINT_BYTES) {
    yield { field: "hint", message: `is longer than ${MAX_HINT_BYTES} bytes` };
  }
}

const MAX_LABELS = 64;
const MAX_LABEL_BYTES = 256;

function* labelFaults(labels: Labels): Generator<EntryFault> {
  if (Object.keys(labels).length > MAX_LABELS) {
    yield { field: "labels", message: `are more than ${MAX_LABELS}` };
  }
  for (const [name, value] of Object.entries(labels)) {
    if (!/^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$/.test(name)) {
      yield {
        field: "labels",
        message: `\`${name.slice(0, 128)}\` is not a label's name (letters, digits, \`.\`, \`_\`, \`/\`, \`-\`)`,
      };
    }
    if (Buffer.byteLength(value) > MAX_LABEL_BYTES || /\p{Cc}/u.test(value)) {
      yield {
        field: "labels",
        message: `\`${name.slice(0, 128)}\` has a value that is longer than ${MAX_LABEL_BYTES} bytes or not printable`,
      };
    }
  }
}

/** Two entries that say the same: one of them is a duplicate. SPEC: SPIRE: (spiffe_id, parent_id, selector set). */
export function entryKey(entry: Pick<RegistrationEntry, "spiffeId" | "parentId" | "selectors">): string {
  return JSON.stringify([entry.spiffeId, entry.parentId, [...new Set(entry.selectors)].sort()]);
}
