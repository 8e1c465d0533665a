/** A database with many entries and agents in it, as a server would have made it, made fast. */
import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { openSqliteStore } from "../../src/io/store/sqlite.ts";

export const TRUST_DOMAIN = "example.com";

export const tokenOf = (agent: number): string => `bench-${agent}`;
export const agentId = (agent: number): string => `spiffe://${TRUST_DOMAIN}/spire/agent/join_token/${tokenOf(agent)}`;

/** `entries`, spread evenly over `agents`: each has selectors as a container's, one of them its own. */
export async function fill(file: string, entries: number, agents: number): Promise<void> {
  await (await openSqliteStore(file)).close();
  const database = new DatabaseSync(file);
  database.exec("PRAGMA synchronous = OFF; BEGIN");
  const entry = database.prepare(
    `insert into entries (id, spiffe_id, parent_id, selectors, similar_key, x509_svid_ttl_ms, jwt_svid_ttl_ms, federates_with, admin,
     downstream, expires_at, dns_names, revision, store_svid, hint, created_at, disable_x509_svid_prefetch, jwt_svid_include_jti)
     values (?, ?, ?, ?, ?, 0, 0, '[]', 0, 0, null, '[]', 0, 0, '', 1700000000000, 0, 0)`,
  );
  for (let index = 0; index < entries; index++) {
    const hash = createHash("sha256").update(String(index)).digest("hex");
    const id = `${hash.slice(0, 8)}-${hash.slice(8, 12)}-4${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`;
    const selectors = [`k8s:ns:team-${index % 50}`, `k8s:pod-name:w-${index}`, "k8s:container-name:main"].sort();
    const spiffeId = `spiffe://${TRUST_DOMAIN}/ns/team-${index % 50}/sa/w-${index}`;
    entry.run(id, spiffeId, agentId(index % agents), JSON.stringify(selectors), hash);
  }
  const node = database.prepare(
    `insert into nodes (id, attestation_type, serial, expires_at, banned, can_reattest, selectors)
     values (?, 'join_token', '0a', 9000000000000, 0, 0, ?)`,
  );
  for (let index = 0; index < agents; index++) {
    node.run(agentId(index), JSON.stringify([`spiffe_id:${agentId(index)}`]));
  }
  database.exec("COMMIT");
  database.close();
}
