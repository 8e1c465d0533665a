/** An Envoy that stands where Istio puts its sidecars: per scenario one HTTP and one TCP listener, mutual TLS or plaintext. */
import type { Scenario } from "../../reference/generate.ts";

/** The filters that policies became, as Istio's compiler orders them. */
export interface Filters {
  readonly http: readonly object[];
  readonly tcp: readonly object[];
}

/** Where one scenario listens. */
export interface Place {
  readonly ip: string;
  readonly httpPort: number;
  readonly tcpPort: number;
}

export interface TlsFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

const TYPE = "type.googleapis.com/envoy.extensions";

/** SOURCE: istio pilot/pkg/networking/util (MeshConfig.pathNormalization). */
const NORMALIZATION: Readonly<Record<Scenario["mesh"]["pathNormalization"], object>> = {
  NONE: { normalize_path: false },
  BASE: { normalize_path: true },
  MERGE_SLASHES: { normalize_path: true, merge_slashes: true },
  DECODE_AND_MERGE_SLASHES: {
    normalize_path: true,
    merge_slashes: true,
    path_with_escaped_slashes_action: "UNESCAPE_AND_FORWARD",
  },
};

const told = (name: string, format: string): object => ({
  header: { key: name, value: format },
  append_action: "OVERWRITE_IF_EXISTS_OR_ADD",
});

/** What a response says about the request it answers. */
const ANSWER = [
  told("x-decided-path", "%REQ(:PATH)%"),
  told("x-authority", "%REQ(:AUTHORITY)%"),
  told("x-details", "%RESPONSE_CODE_DETAILS%"),
  told("x-rbac", "%DYNAMIC_METADATA(envoy.filters.http.rbac)%"),
];

function httpManager(filters: readonly object[], normalization: Scenario["mesh"]["pathNormalization"]): object {
  return {
    name: "envoy.filters.network.http_connection_manager",
    typed_config: {
      "@type": `${TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: "in",
      codec_type: "AUTO",
      server_name: "istio-envoy",
      use_remote_address: false,
      forward_client_cert_details: "APPEND_FORWARD",
      set_current_client_cert_details: { subject: true, dns: true, uri: true },
      upgrade_configs: [{ upgrade_type: "websocket" }],
      ...NORMALIZATION[normalization],
      local_reply_config: {
        mappers: [
          {
            filter: {
              status_code_filter: { comparison: { op: "GE", value: { default_value: 400, runtime_key: "none" } } },
            },
            headers_to_add: ANSWER,
          },
        ],
      },
      route_config: {
        virtual_hosts: [
          {
            name: "all",
            domains: ["*"],
            routes: [
              {
                match: { prefix: "/" },
                direct_response: { status: 200, body: { inline_string: "ok" } },
                response_headers_to_add: ANSWER,
              },
            ],
          },
        ],
      },
      http_filters: [
        ...filters,
        { name: "envoy.filters.http.router", typed_config: { "@type": `${TYPE}.filters.http.router.v3.Router` } },
      ],
    },
  };
}

/** A connection that passes the policies hears itself. */
const ECHO = {
  name: "envoy.filters.network.echo",
  typed_config: { "@type": `${TYPE}.filters.network.echo.v3.Echo` },
};

function listener(name: string, place: Place, port: number, filters: readonly object[], tls: TlsFiles): object {
  const context = {
    "@type": `${TYPE}.transport_sockets.tls.v3.DownstreamTlsContext`,
    require_client_certificate: true,
    common_tls_context: {
      tls_certificates: [{ certificate_chain: { filename: tls.certificate }, private_key: { filename: tls.key } }],
      validation_context: { trusted_ca: { filename: tls.ca } },
    },
  };
  return {
    name,
    address: { socket_address: { address: place.ip, port_value: port } },
    listener_filters: [
      {
        name: "envoy.filters.listener.tls_inspector",
        typed_config: { "@type": `${TYPE}.filters.listener.tls_inspector.v3.TlsInspector` },
      },
    ],
    filter_chains: [
      {
        filter_chain_match: { transport_protocol: "tls" },
        transport_socket: { name: "envoy.transport_sockets.tls", typed_config: context },
        filters,
      },
      { filter_chain_match: { transport_protocol: "raw_buffer" }, filters },
    ],
  };
}

/** The two listeners of one scenario. */
export function listenersOf(scenario: Scenario, filters: Filters, place: Place, tls: TlsFiles): object[] {
  const manager = httpManager(filters.http, scenario.mesh.pathNormalization);
  return [
    listener(`http-${place.ip}`, place, place.httpPort, [manager], tls),
    listener(`tcp-${place.ip}`, place, place.tcpPort, [...filters.tcp, ECHO], tls),
  ];
}

export function bootstrap(listeners: readonly object[]): object {
  return {
    static_resources: { listeners },
    layered_runtime: {
      layers: [
        {
          name: "istio",
          // As in Istio's bootstrap: a fragment is cut off, not refused.
          static_layer: {
            "envoy.reloadable_features.http_reject_path_with_fragment": false,
            "re2.max_program_size.error_level": 32_768,
          },
        },
      ],
    },
  };
}
