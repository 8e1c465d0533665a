/**
 * An OPA bundle that was compiled to WebAssembly, evaluated in this process: the same input and the same answers as OPA's
 * Envoy plugin has, so that one Rego policy does for both.
 */
import { randomUUID } from "node:crypto";
import { type LoadedPolicy, loadPolicy } from "@open-policy-agent/opa-wasm";
import type { OpaWasmProvider } from "../../core/policy/mesh-config.ts";
import type { Log } from "../../io/log.ts";
import { readBundle } from "./bundle.ts";
import { type Authorizer, type Check, type CheckResult, type HeaderChange, isUsable } from "./check.ts";
import { headersOf } from "./headers.ts";

/** 64 KiB each: what a policy's memory may grow to. */
const MAX_PAGES = 1_024;

export function opaAuthorizer(provider: OpaWasmProvider, bundle: Uint8Array | null, log: Log): Authorizer {
  let loading: Promise<LoadedPolicy> | null = null;
  const load = async (): Promise<LoadedPolicy> => {
    if (bundle === null) {
      throw new Error(`the bundle \`${provider.bundle}\` could not be read`);
    }
    const { wasm, data } = readBundle(bundle);
    const policy = await loadPolicy(wasm, { initial: 5, maximum: MAX_PAGES });
    policy.setData(data);
    return policy;
  };
  return {
    async check(check) {
      try {
        loading ??= load();
        const policy = await loading;
        const input = inputOf(check);
        const [first] = policy.evaluate(input, provider.entrypoint) as { readonly result?: unknown }[];
        const result = readResult(first?.result);
        if (provider.decisionLog) {
          logDecision(log, provider, input, first?.result, check.startedMs);
        }
        return result;
      } catch (error) {
        return { kind: "failed", message: error instanceof Error ? error.message : String(error) };
      }
    },
    close: () => {},
  };
}

type Input = ReturnType<typeof inputOf>;

/** SOURCE: opa-envoy-plugin envoyauth/request.go: the check in protobuf's JSON, and the path, query and body taken apart. */
function inputOf(check: Check) {
  const { source, destination, request } = check;
  const peer = ({ principal, ip, port }: { principal: string | null; ip: string; port: number }) => ({
    address: { socketAddress: { address: ip, portValue: Math.max(0, port) } },
    ...(principal === null ? {} : { principal }),
  });
  const [path = "", query = ""] = request === null ? [] : splitOnce(request.path, "?");
  const body = request?.body?.bytes.toString("utf8") ?? "";
  return {
    attributes: {
      source: peer(source),
      destination: peer(destination),
      request: {
        time: new Date(check.startedMs).toISOString(),
        ...(request === null
          ? {}
          : {
              http: {
                id: request.id,
                method: request.method,
                headers: headersOf(check),
                path: request.path,
                host: request.host,
                scheme: request.scheme,
                protocol: request.protocol,
                ...(request.size < 0 ? {} : { size: request.size }),
                ...(body === "" ? {} : { body }),
              },
            }),
      },
    },
    parsed_path: path
      .split("/")
      .slice(1)
      .map((segment) => decoded(segment)),
    parsed_query: queryOf(query),
    parsed_body: parsedBody(body, headersOf(check)["content-type"] ?? ""),
    truncated_body: request?.body?.isPartial ?? false,
    version: { ext_authz: "v3", encoding: "protojson" },
  };
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function queryOf(query: string): Record<string, string[]> {
  const values: Record<string, string[]> = Object.create(null);
  for (const [name, value] of new URLSearchParams(query)) {
    values[name] = [...(values[name] ?? []), value];
  }
  return values;
}

function parsedBody(body: string, type: string): unknown {
  if (!/^application\/(.+\+)?json\b/i.test(type)) {
    return null;
  }
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

/** True or false, or an object that says more. Anything else, and nothing at all, denies. */
function readResult(result: unknown): CheckResult {
  if (typeof result === "boolean" || typeof result !== "object" || result === null) {
    return result === true ? allowed({}) : denied({});
  }
  const given = result as Readonly<Record<string, unknown>>;
  return given.allowed === true ? allowed(given) : denied(given);
}

type Given = Readonly<Record<string, unknown>>;

const allowed = (given: Given): CheckResult => ({
  kind: "allowed",
  headers: pairsOf(given.headers).map(([name, value]): HeaderChange => ({ name, value, how: "overwrite" })),
  remove: Array.isArray(given.request_headers_to_remove)
    ? given.request_headers_to_remove.map((name) => String(name).toLowerCase())
    : [],
  answerHeaders: pairsOf(given.response_headers_to_add),
});

function denied(given: Given): CheckResult {
  const status = given.http_status;
  return {
    kind: "denied",
    status: typeof status === "number" && Number.isInteger(status) && status >= 200 && status <= 599 ? status : 403,
    headers: pairsOf(given.headers),
    body: typeof given.body === "string" ? Buffer.from(given.body, "utf8").toString("latin1") : "",
  };
}

/** `{name: value}`, `{name: [values]}`, or a list of those. */
function pairsOf(given: unknown): [string, string][] {
  const objects: readonly unknown[] = Array.isArray(given) ? given : [given];
  return objects
    .flatMap((each) => (typeof each === "object" && each !== null ? Object.entries(each) : []))
    .flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => [name, one] as const))
    .map(([name, value]): [string, string] => [
      name.toLowerCase(),
      typeof value === "string" ? Buffer.from(value, "utf8").toString("latin1") : String(value),
    ])
    .filter(([name, value]) => isUsable(name, value));
}

/** What is nobody's business in a log. */
const SECRET = new Set(["authorization", "cookie", "proxy-authorization", "x-api-key"]);

/** SPEC: openpolicyagent.org/docs/management-decision-logs: the fields that mean something here. */
function logDecision(
  log: Log,
  { bundle, entrypoint }: OpaWasmProvider,
  input: Input,
  result: unknown,
  ms: number,
): void {
  const { http } = input.attributes.request;
  const headers = Object.fromEntries(
    Object.entries(http?.headers ?? {}).map(([name, value]) => [name, SECRET.has(name) ? "[masked]" : value]),
  );
  const { body: _body, ...rest } = http ?? {};
  const attributes = {
    ...input.attributes,
    request: { ...input.attributes.request, ...(http === undefined ? {} : { http: { ...rest, headers } }) },
  };
  log.info("opa decision", {
    decision_id: randomUUID(),
    bundle,
    path: entrypoint,
    input: { attributes, parsed_path: input.parsed_path },
    result: result ?? null,
    timestamp: new Date(ms).toISOString(),
  });
}
