import type { MessageInitShape } from "@bufbuild/protobuf";
import type { EntryDraft, RegistrationEntry } from "../../core/entries/entry.ts";
import { parseTrustDomain } from "../../core/spiffe/id.ts";
import type {
  CountEntriesRequest_Filter,
  ListEntriesRequest_Filter,
} from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import type { Entry, EntryMask, EntrySchema } from "../../gen/spire/api/types/entry_pb.js";
import { selectorFilter, setFilter } from "./filter.ts";
import {
  idFromWire,
  idText,
  idToWire,
  masked,
  milliseconds,
  names,
  seconds,
  selectorFromWire,
  selectorToWire,
} from "./wire.ts";

export function entryToWire(entry: RegistrationEntry, mask?: EntryMask): MessageInitShape<typeof EntrySchema> {
  const message = {
    id: entry.id,
    spiffeId: idToWire(entry.spiffeId),
    parentId: idToWire(entry.parentId),
    selectors: entry.selectors.map(selectorToWire),
    x509SvidTtl: Number(seconds(entry.x509SvidTtlMs)),
    federatesWith: [...entry.federatesWith],
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAt: seconds(entry.expiresAtMs),
    dnsNames: [...entry.dnsNames],
    revisionNumber: BigInt(entry.revision),
    storeSvid: entry.storeSvid,
    jwtSvidTtl: Number(seconds(entry.jwtSvidTtlMs)),
    hint: entry.hint,
    createdAt: seconds(entry.createdAtMs),
    ...(entry.disableX509SvidPrefetch ? { additionalAttributes: { disableX509SvidPrefetch: true } } : {}),
    labels: { ...entry.labels },
  };
  return masked(message, mask, ["id"]);
}

/** Not yet validated; a selector that is none is left to be refused by name. */
export function draftFromWire(entry: Entry): EntryDraft {
  return {
    id: entry.id,
    spiffeId: idText(entry.spiffeId),
    parentId: idText(entry.parentId),
    selectors: entry.selectors.map(selectorFromWire),
    x509SvidTtlMs: milliseconds(entry.x509SvidTtl),
    jwtSvidTtlMs: milliseconds(entry.jwtSvidTtl),
    federatesWith: entry.federatesWith.map((name) => name.replace(/^spiffe:\/\//, "")),
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAtMs: milliseconds(entry.expiresAt) || null,
    dnsNames: entry.dnsNames,
    storeSvid: entry.storeSvid,
    hint: entry.hint,
    disableX509SvidPrefetch: entry.additionalAttributes?.disableX509SvidPrefetch ?? false,
    labels: entry.labels,
  };
}

/** A draft's fields by the names that a mask has for them. */
const MASK_FIELDS = {
  spiffeId: "spiffeId",
  parentId: "parentId",
  selectors: "selectors",
  x509SvidTtl: "x509SvidTtlMs",
  jwtSvidTtl: "jwtSvidTtlMs",
  federatesWith: "federatesWith",
  admin: "admin",
  downstream: "downstream",
  expiresAt: "expiresAtMs",
  dnsNames: "dnsNames",
  storeSvid: "storeSvid",
  hint: "hint",
  additionalAttributes: "disableX509SvidPrefetch",
  labels: "labels",
} as const satisfies Record<string, keyof EntryDraft>;

/** The current entry with those fields of `changed` that the mask names. */
export function mergeDraft(current: RegistrationEntry, changed: EntryDraft, mask: EntryMask | undefined): EntryDraft {
  const fields = Object.entries(MASK_FIELDS).filter(([name]) => names(mask, name));
  return { ...current, ...Object.fromEntries(fields.map(([, field]) => [field, changed[field]])) };
}

/** Errors: `invalid-argument` for a filter that makes no sense. */
export function entryFilter(
  filter: ListEntriesRequest_Filter | CountEntriesRequest_Filter | undefined,
): (entry: RegistrationEntry) => boolean {
  const tests: ((entry: RegistrationEntry) => boolean)[] = [];
  if (filter?.bySpiffeId !== undefined) {
    const id = idFromWire(filter.bySpiffeId, "spiffe_id filter");
    tests.push((entry) => entry.spiffeId === id);
  }
  if (filter?.byParentId !== undefined) {
    const id = idFromWire(filter.byParentId, "parent_id filter");
    tests.push((entry) => entry.parentId === id);
  }
  if (filter?.bySelectors !== undefined) {
    const matches = selectorFilter(filter.bySelectors);
    tests.push((entry) => matches(entry.selectors));
  }
  if (filter?.byFederatesWith !== undefined) {
    const { trustDomains, match } = filter.byFederatesWith;
    const matches = setFilter(trustDomains.map(parseTrustDomain), match, "federates_with");
    tests.push((entry) => matches(entry.federatesWith));
  }
  if (filter?.byHint !== undefined) {
    const { byHint } = filter;
    tests.push((entry) => entry.hint === byHint);
  }
  const labels = Object.entries(filter?.byLabels ?? {});
  if (labels.length > 0) {
    tests.push((entry) => labels.every(([name, value]) => entry.labels[name] === value));
  }
  // SPIRE's CLI always sends it: false is not "those that are none", but no filter.
  if (filter?.byDownstream === true) {
    tests.push((entry) => entry.downstream);
  }
  return (entry) => tests.every((test) => test(entry));
}
