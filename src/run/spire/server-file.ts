/** SPIRE's `spire-server.conf`, key by key. SPEC: SPIRE, doc/spire_server.md. */

import { bundleEndpoint, federatesWith } from "./federation.ts";
import { DATA_STORE } from "./plugins/data-store.ts";
import { SERVER_KEY_MANAGER } from "./plugins/key-manager.ts";
import { SERVER_NODE_ATTESTOR } from "./plugins/node-attestor.ts";
import { BUNDLE_PUBLISHER, CREDENTIAL_COMPOSER, NOTIFIER } from "./plugins/others.ts";
import { UPSTREAM_AUTHORITY } from "./plugins/upstream-authority.ts";
import { plugins } from "./plugins.ts";
import { healthChecks, LOGGING, misplaced, ownBlock, telemetry } from "./shared.ts";
import { DEFAULT_SERVER_SOCKET } from "./sockets.ts";
import {
  block,
  differs,
  duration,
  flag,
  granted,
  hostPort,
  type Rule,
  text,
  texts,
  to,
  valueAt,
  whole,
} from "./translation.ts";

const KEY_PLUGINS = plugins({
  DataStore: DATA_STORE,
  KeyManager: SERVER_KEY_MANAGER,
  NodeAttestor: SERVER_NODE_ATTESTOR,
  UpstreamAuthority: UPSTREAM_AUTHORITY,
  BundlePublisher: BUNDLE_PUBLISHER,
  Notifier: NOTIFIER,
  CredentialComposer: CREDENTIAL_COMPOSER,
});

const cache = differs("an entry reaches its agents by push, at once");

const EXPERIMENTAL = block({
  agent_spiffe_id_as_selector: granted,
  auth_opa_policy_engine: differs(
    "who may call what is a fixed table: docs/identity.md",
    "`admin_ids` names administrators",
  ),
  cache_reload_interval: cache,
  full_cache_reload_interval: cache,
  events_based_cache: cache,
  prune_events_older_than: cache,
  event_timeout: cache,
  sql_transaction_timeout: differs("a transaction waits for the database's own limit"),
  require_pq_kem: differs("X25519MLKEM768 is used where both sides have it, and not demanded"),
  wit_key_type: differs("there are no WIT-SVIDs"),
  wit_issuer: differs("there are no WIT-SVIDs"),
  feature_flags: differs("there are no feature flags"),
  named_pipe_name: differs("named pipes are Windows's"),
});

const SERVER = block({
  ...LOGGING,
  trust_domain: to(["trustDomain"], text),
  data_dir: to(["dataDir"], text),
  bind_address: () => {},
  bind_port: () => {},
  socket_path: to(["adminSocket"], text),
  admin_ids: to(["adminIds"], texts),
  agent_ttl: to(["ca", "agentTtl"], duration),
  ca_ttl: to(["ca", "caTtl"], duration),
  default_x509_svid_ttl: to(["ca", "x509SvidTtl"], duration),
  default_jwt_svid_ttl: to(["ca", "jwtSvidTtl"], duration),
  jwt_issuer: to(["ca", "jwtIssuer"], text),
  ca_key_type: to(["ca", "keyType"], text),
  jwt_key_type: to(["ca", "jwtKeyType"], text),
  ca_subject: differs("the CA's subject names the trust domain"),
  disable_jwt_svids: (value, at) => {
    if (flag(value, at) === true) {
      at.error("JWT-SVIDs cannot be switched off");
    }
  },
  audit_log_enabled: granted,
  ratelimit: block({
    attestation: to(["rateLimit", "attestation"], flag),
    signing: to(["rateLimit", "signing"], flag),
  }),
  federation: block({ bundle_endpoint: bundleEndpoint, federates_with: federatesWith }),
  prune_attested_nodes_expired_for: to(["pruneAgents", "expiredFor"], duration),
  prune_attested_nodes_batch_size: granted,
  prune_tofu_nodes: to(["pruneAgents", "nonReattestable"], flag),
  proxy_protocol_trusted_cidrs: differs("PROXY headers are not read: limits count the proxy's address"),
  max_attested_node_info_staleness: differs("what is known of an agent is never stale"),
  experimental: EXPERIMENTAL,
  plugins: misplaced(KEY_PLUGINS, "server"),
});

const TOP = block({
  server: (value, at) => {
    SERVER(value, at);
    listen(value, at);
  },
  plugins: KEY_PLUGINS,
  telemetry: telemetry("http"),
  health_checks: healthChecks,
  everyhop: ownBlock,
});

const listen: Rule = (value, at) => {
  const host = valueAt(value, at, "bind_address");
  const port = valueAt(value, at, "bind_port");
  const name = host === null ? "0.0.0.0" : (text(...host) ?? "");
  (port ?? host ?? [null, at])[1].set(["listen"], hostPort(name, port === null ? 8081 : (whole(...port) ?? 0)));
  if (valueAt(value, at, "socket_path") === null) {
    at.set(["adminSocket"], DEFAULT_SERVER_SOCKET);
  }
  for (const key of ["trust_domain", "data_dir"]) {
    if (valueAt(value, at, key) === null) {
      at.error(`\`${key}\` is missing`);
    }
  }
};

/** The whole file. */
export const spireServer: Rule = (value, at) => {
  if (valueAt(value, at, "server") === null) {
    at.error(
      "the block `server { … }` is missing",
      "this is read as SPIRE's configuration; ours is YAML: docs/operate.md",
    );
  }
  TOP(value, at);
};
