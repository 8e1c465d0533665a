/** Two Envoys of one worker each, as Istio's sidecars are: mTLS between, SPIFFE IDs checked, one RBAC rule. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { CLIENT_ID, endProcess, freePort, type Pair, SERVER_ID, startProcess, untilListening } from "./pair.ts";

const TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER = {
  name: "envoy.filters.http.router",
  typed_config: { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
};
const H2_OPTIONS = {
  "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    explicit_http_config: { http2_protocol_options: {} },
  },
};

const socketAddress = (address: string): object => {
  const [host, port] = address.split(":");
  return { socket_address: { address: host, port_value: Number(port) } };
};

function tlsContext(folder: string, own: string, peer: string): object {
  return {
    tls_params: { tls_minimum_protocol_version: "TLSv1_3", tls_maximum_protocol_version: "TLSv1_3" },
    tls_certificates: [
      { certificate_chain: { filename: `${folder}/${own}.crt` }, private_key: { filename: `${folder}/${own}.key` } },
    ],
    validation_context: {
      trusted_ca: { filename: `${folder}/ca.pem` },
      match_typed_subject_alt_names: [{ san_type: "URI", matcher: { exact: peer } }],
    },
  };
}

function listener(address: string, cluster: string, filters: readonly object[], tls?: object): object {
  const manager = {
    "@type": HCM,
    stat_prefix: cluster,
    codec_type: "AUTO",
    route_config: {
      virtual_hosts: [{ name: "all", domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster } }] }],
    },
    http_filters: [...filters, ROUTER],
  };
  const chain = {
    filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }],
    ...(tls === undefined
      ? {}
      : {
          transport_socket: {
            name: "envoy.transport_sockets.tls",
            typed_config: { "@type": `${TLS}.DownstreamTlsContext`, ...tls },
          },
        }),
  };
  return { name: cluster, address: socketAddress(address), filter_chains: [chain] };
}

function cluster(name: string, address: string, extra: object): object {
  return {
    name,
    type: "STATIC",
    circuit_breakers: { thresholds: [{ max_connections: 4096, max_pending_requests: 4096, max_requests: 4096 }] },
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: socketAddress(address) } }] }],
    },
    ...extra,
  };
}

export async function startEnvoyPair(binary: string, folder: string, backend: string, h2: boolean): Promise<Pair> {
  const [outbound, inbound] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const tag = h2 ? "h2" : "h1";
  const alpn = { alpn_protocols: [h2 ? "h2" : "http/1.1"] };
  const rbac = {
    name: "envoy.filters.http.rbac",
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
      rules: {
        action: "ALLOW",
        policies: {
          one: {
            permissions: [{ any: true }],
            principals: [{ authenticated: { principal_name: { exact: CLIENT_ID } } }],
          },
        },
      },
    },
  };
  const server = {
    static_resources: {
      listeners: [
        listener(inbound, "app", [rbac], {
          require_client_certificate: true,
          common_tls_context: { ...tlsContext(folder, "server", CLIENT_ID), ...alpn },
        }),
      ],
      clusters: [cluster("app", backend, {})],
    },
  };
  const upstreamTls = {
    "@type": `${TLS}.UpstreamTlsContext`,
    common_tls_context: { ...tlsContext(folder, "client", SERVER_ID), ...alpn },
  };
  const client = {
    static_resources: {
      listeners: [listener(outbound, "peer", [])],
      clusters: [
        cluster("peer", inbound, {
          transport_socket: { name: "envoy.transport_sockets.tls", typed_config: upstreamTls },
          ...(h2 ? { typed_extension_protocol_options: H2_OPTIONS } : {}),
        }),
      ],
    },
  };
  const start = async (name: string, config: object, address: string, id: number) => {
    const file = join(folder, `envoy-${name}-${tag}.json`);
    writeFileSync(file, JSON.stringify(config));
    const args = ["-c", file, "--concurrency", "1", "--base-id", String(id), "--log-level", "error"];
    const child = startProcess(binary, args);
    await untilListening(address, child);
    return child;
  };
  const id = 1_000 + (process.pid % 10_000) * 4 + (h2 ? 2 : 0);
  const second = await start("server", server, inbound, id);
  const first = await start("client", client, outbound, id + 1);
  return {
    name: `Envoy pair, ${tag} between`,
    address: outbound,
    pids: [first.pid as number, second.pid as number],
    stop: async () => void (await Promise.all([endProcess(first), endProcess(second)])),
  };
}
