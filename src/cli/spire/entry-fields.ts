/** An entry from SPIRE's flags, or from its JSON files (`-data`). */
import { readFile } from "node:fs/promises";
import { create } from "@bufbuild/protobuf";
import { type Entry, EntrySchema } from "../../gen/spire/api/types/entry_pb.js";
import { readId, readSelector } from "./command.ts";
import { type Flags, flag, type Given, text, texts, UsageError } from "./flags.ts";

export const ENTRY_FIELDS: Flags = {
  entryID: text("A custom ID for this registration entry (optional); for update: which"),
  parentID: text("The SPIFFE ID of this record's parent"),
  spiffeID: text("The SPIFFE ID that this record represents"),
  x509SVIDTTL: text("The lifetime, in seconds, for x509-SVIDs issued based on this registration entry"),
  jwtSVIDTTL: text("The lifetime, in seconds, for JWT-SVIDs issued based on this registration entry"),
  data: text("Path to a file containing registration JSON (optional). If set to '-', read the JSON from stdin"),
  selector: texts("A colon-delimited type:value selector. Can be used more than once"),
  federatesWith: texts("SPIFFE ID of a trust domain to federate with. Can be used more than once"),
  node: flag("If set, this entry will be applied to matching nodes rather than workloads"),
  admin: flag("If set, the SPIFFE ID in this entry will be granted access to the server's management APIs"),
  storeSVID: flag("When set, the SVID is stored through an SVIDStore plugin"),
  downstream: flag("When set, the entry describes a downstream server"),
  entryExpiry: text("An expiry, from epoch in seconds, for the resulting registration entry to be pruned"),
  dns: texts("A DNS name that will be included in SVIDs. Can be used more than once"),
  hint: text("The entry hint, used to disambiguate entries with the same SPIFFE ID"),
  disableX509SVIDPrefetch: flag("When set, the agent fetches the SVID when it is first asked for"),
};

export function entryFromFlags(given: Given, { mustHaveAll }: { readonly mustHaveAll: boolean }): Entry {
  const node = given.flag("node");
  if (mustHaveAll) {
    check(given, node);
  }
  const spiffeId = readId(given.text("spiffeID"));
  const parentId = node ? { trustDomain: spiffeId.trustDomain, path: "/spire/server" } : readId(given.text("parentID"));
  const prefetch = given.flag("disableX509SVIDPrefetch");
  return create(EntrySchema, {
    id: given.text("entryID"),
    spiffeId,
    parentId,
    selectors: given.texts("selector").map(readSelector),
    x509SvidTtl: given.number("x509SVIDTTL"),
    jwtSvidTtl: given.number("jwtSVIDTTL"),
    federatesWith: [...given.texts("federatesWith")],
    admin: given.flag("admin"),
    downstream: given.flag("downstream"),
    storeSvid: given.flag("storeSVID"),
    expiresAt: BigInt(given.number("entryExpiry")),
    dnsNames: [...given.texts("dns")],
    hint: given.text("hint"),
    ...(prefetch ? { additionalAttributes: { disableX509SvidPrefetch: true } } : {}),
  });
}

function check(given: Given, node: boolean): void {
  const faults: [boolean, string][] = [
    [given.texts("selector").length === 0, "at least one selector is required"],
    [node && given.texts("federatesWith").length > 0, "node entries can not federate"],
    [given.text("parentID") === "" && !node, "a parent ID is required if the node flag is not set"],
    [given.text("spiffeID") === "", "a SPIFFE ID is required"],
    [given.number("x509SVIDTTL") < 0, "a positive x509-SVID TTL is required"],
    [given.number("jwtSVIDTTL") < 0, "a positive JWT-SVID TTL is required"],
  ];
  const [first] = faults.filter(([wrong]) => wrong);
  if (first !== undefined) {
    throw new UsageError(first[1]);
  }
}

/**
 * SPIRE's registration JSON (`{"entries": [{"spiffe_id": "spiffe://…", "selectors": [{"type", "value"}]}]}`), or what its
 * `entry show -output json` prints, so that a server's entries can be brought to another.
 */
export async function entriesFromFile(path: string): Promise<Entry[]> {
  const { entries } = (await readJson(path)) as { entries?: unknown };
  if (!Array.isArray(entries)) {
    throw new UsageError(`${path}: expected {"entries": […]}`);
  }
  return entries.map((entry) => entryFromJson(entry as Record<string, unknown>));
}

function entryFromJson(given: Record<string, unknown>): Entry {
  const field = (...names: readonly string[]): unknown =>
    names.map((name) => given[name]).find((value) => value !== undefined);
  const id = (value: unknown) =>
    typeof value === "string" ? readId(value) : (value as { trust_domain?: string; path?: string } | undefined);
  const wire = (value: unknown) => {
    const found = id(value) as { trust_domain?: string; trustDomain?: string; path?: string } | undefined;
    return { trustDomain: found?.trustDomain ?? found?.trust_domain ?? "", path: found?.path ?? "" };
  };
  const more = field("additional_attributes") as Record<string, unknown> | null | undefined;
  if (more?.jwt_svid_include_jti === true) {
    throw new UsageError("`jwt_svid_include_jti` is not there in this server's API");
  }
  return create(EntrySchema, {
    id: String(field("id", "entry_id") ?? ""),
    spiffeId: wire(field("spiffe_id")),
    parentId: wire(field("parent_id")),
    selectors: ((field("selectors") as { type: string; value: string }[] | undefined) ?? []).map(({ type, value }) => ({
      type,
      value,
    })),
    x509SvidTtl: Number(field("x509_svid_ttl") ?? 0),
    jwtSvidTtl: Number(field("jwt_svid_ttl") ?? 0),
    federatesWith: (field("federates_with") as string[] | undefined) ?? [],
    admin: field("admin") === true,
    downstream: field("downstream") === true,
    expiresAt: BigInt(String(field("expires_at", "entryExpiry", "entry_expiry") ?? 0)),
    dnsNames: (field("dns_names") as string[] | undefined) ?? [],
    storeSvid: field("store_svid") === true,
    hint: String(field("hint") ?? ""),
    ...(more?.disable_x509_svid_prefetch === true ? { additionalAttributes: { disableX509SvidPrefetch: true } } : {}),
  });
}

/** `{"ids": […]}`. */
export async function idsFromFile(path: string): Promise<string[]> {
  const { ids } = (await readJson(path)) as { ids?: unknown };
  if (!Array.isArray(ids) || !ids.every((id) => typeof id === "string")) {
    throw new UsageError(`${path}: expected {"ids": ["…"]}`);
  }
  return ids;
}

async function readJson(path: string): Promise<object> {
  const text = path === "-" ? await standardInput() : await readFile(path, "utf8");
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) {
      return value;
    }
  } catch (cause) {
    throw new UsageError(`${path}: ${(cause as Error).message}`);
  }
  throw new UsageError(`${path}: expected a JSON object`);
}

export async function standardInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString("utf8");
}
