import type { Entry } from "../gen/spire/api/types/entry_pb.js";
import { idOfWire, timeOfWire } from "./arguments.ts";

/** An entry as `--json` shows it. */
export interface EntryDocument {
  readonly id: string;
  readonly spiffeId: string;
  readonly parentId: string;
  readonly selectors: readonly string[];
  readonly x509SvidTtlMs: number | null;
  readonly jwtSvidTtlMs: number | null;
  readonly federatesWith: readonly string[];
  readonly admin: boolean;
  readonly downstream: boolean;
  readonly expiresAt: string | null;
  readonly dnsNames: readonly string[];
  readonly revision: number;
  readonly storeSvid: boolean;
  readonly hint: string;
  readonly createdAt: string | null;
  readonly disableX509SvidPrefetch: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

export function entryDocument(entry: Entry): EntryDocument {
  return {
    id: entry.id,
    spiffeId: idOfWire(entry.spiffeId),
    parentId: idOfWire(entry.parentId),
    selectors: entry.selectors.map(({ type, value }) => `${type}:${value}`),
    x509SvidTtlMs: entry.x509SvidTtl * 1_000 || null,
    jwtSvidTtlMs: entry.jwtSvidTtl * 1_000 || null,
    federatesWith: entry.federatesWith,
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAt: timeOfWire(entry.expiresAt),
    dnsNames: entry.dnsNames,
    revision: Number(entry.revisionNumber),
    storeSvid: entry.storeSvid,
    hint: entry.hint,
    createdAt: timeOfWire(entry.createdAt),
    disableX509SvidPrefetch: entry.additionalAttributes?.disableX509SvidPrefetch ?? false,
    labels: entry.labels,
  };
}

/** An entry as SPIRE's users know it. */
export function entryText(entry: EntryDocument): string {
  const ttl = (ms: number | null) => (ms === null ? "default" : `${ms / 1_000} s`);
  const rows: [string, string][] = [
    ["Entry ID", entry.id],
    ["SPIFFE ID", entry.spiffeId],
    ["Parent ID", entry.parentId],
    ["Revision", String(entry.revision)],
    ["X509-SVID TTL", ttl(entry.x509SvidTtlMs)],
    ["JWT-SVID TTL", ttl(entry.jwtSvidTtlMs)],
    ...entry.selectors.map((selector): [string, string] => ["Selector", selector]),
    ...entry.federatesWith.map((name): [string, string] => ["FederatesWith", name]),
    ...entry.dnsNames.map((name): [string, string] => ["DNS name", name]),
    ...Object.entries(entry.labels).map(([name, value]): [string, string] => ["Label", `${name}=${value}`]),
  ];
  const flags: [string, boolean | string | null][] = [
    ["Admin", entry.admin],
    ["Downstream", entry.downstream],
    ["StoreSvid", entry.storeSvid],
    ["Expires", entry.expiresAt],
    ["Hint", entry.hint],
  ];
  for (const [name, value] of flags) {
    if (value !== false && value !== null && value !== "") {
      rows.push([name, String(value)]);
    }
  }
  return rows.map(([name, value]) => `${name.padEnd(16)} : ${value}`).join("\n");
}
