/** DataStore "sql". */
import type { PluginType } from "../plugins.ts";
import { block, differs, type Rule, text, valueAt } from "../translation.ts";

const keys = block({
  database_type: () => {},
  connection_string: () => {},
  ro_connection_string: differs("reads go to the one connection"),
  root_ca_path: () => {},
  client_cert_path: () => {},
  client_key_path: () => {},
  max_open_conns: differs("the size of the pool is ours"),
  max_idle_conns: differs("the size of the pool is ours"),
  conn_max_lifetime: differs("the pool is ours"),
  disable_migration: differs("the schema is always brought up to date at the start"),
});

/** SPIRE has these beside the connection string; to libpq they are part of it. */
const FILES = { root_ca_path: "sslrootcert", client_cert_path: "sslcert", client_key_path: "sslkey" } as const;

function withFiles(connection: string, files: readonly (readonly [string, string])[]): string {
  if (/^postgres(ql)?:\/\//i.test(connection)) {
    const query = files.map(([name, file]) => `${name}=${encodeURIComponent(file)}`).join("&");
    return query === "" ? connection : `${connection}${connection.includes("?") ? "&" : "?"}${query}`;
  }
  return [connection, ...files.map(([name, file]) => `${name}='${file.replaceAll(/[\\']/g, "\\$&")}'`)].join(" ");
}

const sql: Rule = (value, at) => {
  keys(value, at);
  const type = valueAt(value, at, "database_type") ?? ["", at];
  const connection = valueAt(value, at, "connection_string");
  const kind = text(...type);
  if (kind === "sqlite3") {
    connection?.[1].info(
      `the database is \`server.db\` in \`data_dir\`: \`${connection[0]}\` is SPIRE's own, and left as it is`,
      "bring its entries over with `spire-server entry show -output json`: docs/from-spire.md",
    );
  } else if (kind === "postgres") {
    type[1].set(["dataStore", "kind"], "postgres");
    if (connection !== null) {
      const files = Object.entries(FILES).flatMap(([key, parameter]) => {
        const file = valueAt(value, at, key);
        return file === null ? [] : [[parameter, text(...file) ?? ""] as const];
      });
      connection[1].set(["dataStore", "connection"], withFiles(text(...connection) ?? "", files));
    }
  } else {
    type[1].error(`\`${kind}\` is no database that everyhop knows`, "use `sqlite3` or `postgres`");
  }
};

export const DATA_STORE: PluginType = { plugins: { sql }, missing: {}, hint: 'use DataStore "sql"' };
