/** The part of Istio's MeshConfig that decides: read under Istio's own names, with Istio's defaults. */
import { type Cidr, parseCidr } from "../base/cidr.ts";
import { configError } from "../base/errors.ts";
import {
  anything,
  boolean,
  duration,
  list,
  object,
  oneOf,
  optional,
  port,
  record,
  refined,
  required,
  type Shape,
  string,
  validate,
} from "../base/validate.ts";
import { parseYaml, type YamlDocument } from "../base/yaml.ts";
import { PATH_NORMALIZATIONS, type PathNormalization } from "./normalize.ts";

export interface MeshConfig {
  readonly rootNamespace: string;
  /** Where the mesh config names one; else the mesh's own configuration does. */
  readonly trustDomain: string | null;
  readonly trustDomainAliases: readonly string[];
  readonly pathNormalization: PathNormalization;
  readonly extensionProviders: readonly ExtensionProvider[];
  /** Where key sets of a `jwksUri` may be fetched from besides public addresses. */
  readonly jwksAllowed: readonly Cidr[];
}

export interface ExtensionProvider {
  readonly name: string;
  readonly kind: "http" | "grpc" | "wasm" | "other";
  readonly extAuthz: ExtAuthzProvider | null;
  /** Ours: an OPA bundle in the sidecar itself. */
  readonly opaWasm: OpaWasmProvider | null;
}

export interface OpaWasmProvider {
  /** A file, relative to the mesh's folder. */
  readonly bundle: string;
  /** As `opa build -e` was given it: `envoy/authz/allow`. */
  readonly entrypoint: string;
  readonly decisionLog: boolean;
}

export interface ExtAuthzProvider {
  readonly service: string;
  readonly port: number;
  readonly timeoutMs: number;
  readonly failOpen: boolean;
  readonly statusOnError: number;
  readonly pathPrefix: string;
  readonly includeRequestHeadersInCheck: readonly string[];
  readonly includeAdditionalHeadersInCheck: Readonly<Record<string, string>>;
  readonly headersToUpstreamOnAllow: readonly string[];
  readonly headersToDownstreamOnDeny: readonly string[];
  readonly headersToDownstreamOnAllow: readonly string[];
  readonly includeRequestBodyInCheck: {
    readonly maxRequestBytes: number;
    readonly allowPartialMessage: boolean;
    readonly packAsBytes: boolean;
  } | null;
}

export const DEFAULT_MESH_CONFIG: MeshConfig = {
  rootNamespace: "istio-system",
  trustDomain: null,
  trustDomainAliases: [],
  pathNormalization: "BASE",
  extensionProviders: [],
  jwksAllowed: [],
};

const DEFAULT_EXT_AUTHZ_TIMEOUT_MS = 600_000;

const wholeNumber: Shape<number> = {
  read: (value, at) =>
    typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : at.fault("expected a whole number"),
};

const extAuthzFields = {
  service: required(string()),
  port: required(port()),
  timeout: optional(duration()),
  failOpen: optional(boolean()),
  clearRouteCache: optional(boolean()),
  statusOnError: optional(string({ pattern: /^\d{3}$/, what: "an HTTP status in quotes" })),
  includeRequestBodyInCheck: optional(
    object({
      maxRequestBytes: optional(wholeNumber),
      allowPartialMessage: optional(boolean()),
      packAsBytes: optional(boolean()),
    }),
  ),
};

const extAuthzHttp = object({
  ...extAuthzFields,
  pathPrefix: optional(string()),
  includeHeadersInCheck: optional(list(string())),
  includeRequestHeadersInCheck: optional(list(string())),
  includeAdditionalHeadersInCheck: optional(record(string())),
  headersToUpstreamOnAllow: optional(list(string())),
  headersToDownstreamOnDeny: optional(list(string())),
  headersToDownstreamOnAllow: optional(list(string())),
});

const extAuthzGrpc = object(extAuthzFields);

const opaWasm = refined(
  object({
    bundle: required(string({ pattern: /\S/, what: "a file" })),
    entrypoint: required(string({ pattern: /^[\w./-]+$/, what: "an entrypoint, as `envoy/authz/allow`" })),
    decisionLog: optional(boolean()),
  }),
  (given): OpaWasmProvider => ({ ...given, decisionLog: given.decisionLog ?? false }),
);

const provider = refined(
  {
    read: (value, at) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        return at.fault("expected a mapping");
      }
      const { name, envoyExtAuthzHttp, envoyExtAuthzGrpc, everyhopOpaWasm } = value as Record<string, unknown>;
      const http =
        envoyExtAuthzHttp === undefined ? null : extAuthzHttp.read(envoyExtAuthzHttp, at.into("envoyExtAuthzHttp"));
      const grpc =
        envoyExtAuthzGrpc === undefined ? null : extAuthzGrpc.read(envoyExtAuthzGrpc, at.into("envoyExtAuthzGrpc"));
      const wasm = everyhopOpaWasm === undefined ? null : opaWasm.read(everyhopOpaWasm, at.into("everyhopOpaWasm"));
      return { name: string().read(name, at.into("name")), http, grpc, wasm };
    },
  } satisfies Shape<{
    name: string | undefined;
    http: HttpConfig | null | undefined;
    grpc: GrpcConfig | null | undefined;
    wasm: OpaWasmProvider | null | undefined;
  }>,
  ({ name, http, grpc, wasm }): ExtensionProvider | undefined => {
    if (name === undefined || http === undefined || grpc === undefined || wasm === undefined) {
      return undefined;
    }
    const kind = http !== null ? "http" : grpc !== null ? "grpc" : wasm !== null ? "wasm" : "other";
    const config = http ?? grpc;
    return { name, kind, extAuthz: config === null ? null : readExtAuthz(config), opaWasm: wasm };
  },
);

type HttpConfig = NonNullable<ReturnType<typeof extAuthzHttp.read>>;
type GrpcConfig = NonNullable<ReturnType<typeof extAuthzGrpc.read>>;

function readExtAuthz(config: HttpConfig | GrpcConfig): ExtAuthzProvider {
  const http: Partial<HttpConfig> = config;
  const body = config.includeRequestBodyInCheck;
  return {
    service: config.service,
    port: config.port,
    timeoutMs: config.timeout ?? DEFAULT_EXT_AUTHZ_TIMEOUT_MS,
    failOpen: config.failOpen ?? false,
    statusOnError: Number(config.statusOnError ?? "403"),
    pathPrefix: http.pathPrefix ?? "",
    includeRequestHeadersInCheck: http.includeRequestHeadersInCheck ?? http.includeHeadersInCheck ?? [],
    includeAdditionalHeadersInCheck: http.includeAdditionalHeadersInCheck ?? {},
    headersToUpstreamOnAllow: http.headersToUpstreamOnAllow ?? [],
    headersToDownstreamOnDeny: http.headersToDownstreamOnDeny ?? [],
    headersToDownstreamOnAllow: http.headersToDownstreamOnAllow ?? [],
    includeRequestBodyInCheck:
      body === undefined
        ? null
        : {
            maxRequestBytes: body.maxRequestBytes ?? 0,
            allowPartialMessage: body.allowPartialMessage ?? false,
            packAsBytes: body.packAsBytes ?? false,
          },
  };
}

/** Istio writes `pathNormalization: {normalization: BASE}`; a bare word and DEFAULT are taken too. */
const normalization: Shape<PathNormalization> = {
  read(value, at) {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return object({ normalization: optional(word) }).read(value, at)?.normalization ?? "BASE";
    }
    return word.read(value, at);
  },
};

const word: Shape<PathNormalization> = refined(
  oneOf("DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"),
  (mode) => (mode === "DEFAULT" ? "BASE" : mode),
);

/** Fields of MeshConfig that decide nothing here, accepted so that an existing mesh config can be used as it is. */
const OTHER_FIELDS = [
  "accessLogEncoding",
  "accessLogFile",
  "accessLogFormat",
  "caCertificates",
  "defaultConfig",
  "defaultProviders",
  "discoverySelectors",
  "enableAutoMtls",
  "enablePrometheusMerge",
  "enableTracing",
  "ingressControllerMode",
  "ingressService",
  "localityLbSetting",
  "meshMTLS",
  "meshId",
  "outboundTrafficPolicy",
  "tlsDefaults",
] as const;

const block: Shape<Cidr> = refined(
  string({ what: "an address or CIDR block" }),
  (text, at) => parseCidr(text) ?? at.fault(`\`${text}\` is neither an IP address nor a CIDR block`),
);

const trustDomainName = string({ pattern: /^\S+$/, what: "a trust domain" });

export const meshConfigShape: Shape<MeshConfig> = refined(
  object({
    rootNamespace: optional(string({ pattern: /^\S+$/, what: "a namespace" })),
    trustDomain: optional(trustDomainName),
    trustDomainAliases: optional(list(trustDomainName)),
    pathNormalization: optional(normalization),
    extensionProviders: optional(list(provider)),
    // Ours, beside Istio's own.
    everyhopJwks: optional(object({ allow: optional(list(block)) })),
    ...(Object.fromEntries(OTHER_FIELDS.map((name) => [name, optional(anything())])) as Record<
      (typeof OTHER_FIELDS)[number],
      { shape: Shape<unknown>; required: false }
    >),
  }),
  (given): MeshConfig => ({
    rootNamespace: given.rootNamespace ?? DEFAULT_MESH_CONFIG.rootNamespace,
    trustDomain: given.trustDomain ?? null,
    trustDomainAliases: given.trustDomainAliases ?? [],
    pathNormalization: given.pathNormalization ?? DEFAULT_MESH_CONFIG.pathNormalization,
    extensionProviders: given.extensionProviders ?? [],
    jwksAllowed: given.everyhopJwks?.allow ?? [],
  }),
);

/** Parses a mesh config in YAML or JSON (an empty text is the default); throws a configuration error with its issues. */
export function parseMeshConfig(text: string, file?: string): MeshConfig {
  const { documents, issues } = parseYaml(text, file);
  const document: YamlDocument | undefined = documents[0];
  if (issues.length > 0) {
    throw configError(issues);
  }
  if (document === undefined) {
    return DEFAULT_MESH_CONFIG;
  }
  const result = validate(meshConfigShape, document);
  if (result.value === undefined) {
    throw configError(result.issues);
  }
  return result.value;
}

export const isPathNormalization = (word: string): word is PathNormalization =>
  (PATH_NORMALIZATIONS as readonly string[]).includes(word);
