/** SPIRE's `spire-agent.conf`, key by key. SPEC: SPIRE, doc/spire_agent.md. */

import { AGENT_KEY_MANAGER } from "./plugins/key-manager.ts";
import { AGENT_NODE_ATTESTOR } from "./plugins/node-attestor.ts";
import { SVID_STORE } from "./plugins/others.ts";
import { WORKLOAD_ATTESTOR } from "./plugins/workload-attestor.ts";
import { plugins } from "./plugins.ts";
import { healthChecks, LOGGING, misplaced, ownBlock, telemetry } from "./shared.ts";
import { DEFAULT_AGENT_SOCKET } from "./sockets.ts";
import {
  block,
  blocks,
  differs,
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

const AGENT_PLUGINS = plugins({
  KeyManager: AGENT_KEY_MANAGER,
  NodeAttestor: AGENT_NODE_ATTESTOR,
  WorkloadAttestor: WORKLOAD_ATTESTOR,
  SVIDStore: SVID_STORE,
});

/** Said only where it asks for what we do not do. */
const unless =
  (asked: boolean, what: string): Rule =>
  (value, at) => {
    if (flag(value, at) === asked) {
      at.warn(`\`${at.key}\` is not used here: ${what}`);
    }
  };

const broker: Rule = (value, at) => {
  block({
    socket_path: to(["brokerSocket"], text),
    bind_address: to(["brokerListen"], text),
    brokers: (inner, here) => {
      const ids = blocks(inner, here).flatMap(([each]) => (typeof each.id === "string" ? [each.id] : []));
      here.set(["brokers"], ids);
    },
  })(value, at);
};

const EXPERIMENTAL = block({
  sync_interval: differs("the server pushes changes"),
  jwt_svid_cache_hit_timeout: differs("a cached token is used where it is good for half its life"),
  named_pipe_name: differs("named pipes are Windows's"),
  admin_named_pipe_name: differs("named pipes are Windows's"),
  use_sync_authorized_entries: unless(false, "entries are always synced by revision"),
  require_pq_kem: differs("X25519MLKEM768 is used where both sides have it, and not demanded"),
  ratelimit: differs("calls of a workload are limited per process"),
  broker,
  feature_flags: differs("there are no feature flags"),
});

const SDS = block({
  default_svid_name: to(["sds", "defaultSvidName"], text),
  default_bundle_name: to(["sds", "defaultBundleName"], text),
  default_all_bundles_name: to(["sds", "defaultAllBundlesName"], text),
  disable_spiffe_cert_validation: to(["sds", "disableSpiffeCertValidation"], flag),
});

const keyType: Rule = (value, at) => {
  if (text(value, at) !== "ec-p256") {
    at.warn(`workloads' keys are ec-p256, not \`${value}\``);
  }
};

const rebootstrap: Rule = (value, at) => {
  if (text(value, at) !== "never") {
    at.warn(
      "`rebootstrap_mode` is not used here: an agent that lost its trust takes a trust bundle file that is newer",
      "write the server's bundle to `trust_bundle_path` again",
    );
  }
};

const AGENT = block({
  ...LOGGING,
  trust_domain: to(["trustDomain"], text),
  data_dir: to(["dataDir"], text),
  server_address: () => {},
  server_port: () => {},
  socket_path: to(["socket"], text),
  admin_socket_path: to(["adminSocket"], text),
  join_token: to(["joinToken"], text),
  join_token_file: to(["joinTokenFile"], text),
  trust_bundle_path: to(["trustBundle"], text),
  trust_bundle_url: to(["trustBundleUrl"], text),
  trust_bundle_unix_socket: to(["trustBundleUnixSocket"], text),
  trust_bundle_format: to(["trustBundleFormat"], text),
  trust_bundle_spiffe_workload_api: differs("give `trust_bundle_path` or `trust_bundle_url`"),
  insecure_bootstrap: to(["insecureBootstrap"], flag),
  rebootstrap_mode: rebootstrap,
  rebootstrap_delay: granted,
  log_selectors: differs("`everyhop entry explain` shows a process's selectors"),
  sds: SDS,
  disable_workload_api: unless(true, "the Workload API is always served"),
  disable_sds_api: unless(true, "SDS is always served"),
  workload_x509_svid_key_type: keyType,
  allow_unauthenticated_verifiers: to(["verifiers", "allowUnauthenticated"], flag),
  allowed_foreign_jwt_claims: to(["verifiers", "foreignClaims"], texts),
  availability_target: differs("an SVID is renewed at half of its life"),
  x509_svid_cache_max_size: differs(
    "every SVID that is asked for is held; `disableX509SvidPrefetch` keeps one from being fetched before",
  ),
  jwt_svid_cache_max_size: differs("tokens are held until they expire"),
  authorized_delegates: to(["authorizedDelegates"], texts),
  experimental: EXPERIMENTAL,
  plugins: misplaced(AGENT_PLUGINS, "agent"),
});

const TOP = block({
  agent: (value, at) => {
    AGENT(value, at);
    complete(value, at);
  },
  plugins: AGENT_PLUGINS,
  telemetry: telemetry("metrics"),
  health_checks: healthChecks,
  everyhop: ownBlock,
});

/** What the agent's block says together, and what SPIRE has where it says nothing. */
const complete: Rule = (value, at) => {
  const host = valueAt(value, at, "server_address");
  const port = valueAt(value, at, "server_port");
  for (const key of ["trust_domain", "server_address", "server_port"]) {
    if (valueAt(value, at, key) === null) {
      at.error(`\`${key}\` is missing`);
    }
  }
  if (host !== null && port !== null) {
    host[1].set(["server"], hostPort(text(...host) ?? "", whole(...port) ?? 0));
  }
  const given = (key: string) => valueAt(value, at, key) !== null;
  if (!given("socket_path")) {
    at.set(["socket"], DEFAULT_AGENT_SOCKET);
  }
  const dataDir = valueAt(value, at, "data_dir");
  if (dataDir === null) {
    at.set(["dataDir"], ".");
  }
  const experimental = valueAt(value, at, "experimental");
  if (experimental === null || valueAt(experimental[0], experimental[1], "broker") === null) {
    at.set(["brokerSocket"], `${dataDir === null ? "." : text(...dataDir)}/broker.sock`);
  }
};

/** The whole file. */
export const spireAgent: Rule = (value, at) => {
  if (valueAt(value, at, "agent") === null) {
    at.error(
      "the block `agent { … }` is missing",
      "this is read as SPIRE's configuration; ours is YAML: docs/operate.md",
    );
  }
  TOP(value, at);
};
