/** An authorizer over gRPC, asked as Envoy asks: `envoy.service.auth.v3.Authorization/Check`. */
import type { MessageShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { credentials, status as grpcStatus } from "@grpc/grpc-js";
import type { ExtAuthzProvider } from "../../core/policy/mesh-config.ts";
import type { HeaderValueOption } from "../../gen/envoy/config/core/v3/header_pb.js";
import { Authorization, type CheckResponseSchema } from "../../gen/envoy/service/auth/v3/external_auth_pb.js";
import { type Address, formatAddress } from "../../io/net.ts";
import { makeClient } from "../../io/rpc/adapter.ts";
import { type Authorizer, type Check, type CheckResult, type HeaderChange, isUsable } from "./check.ts";
import { headersOf, wireText } from "./headers.ts";

type Response = MessageShape<typeof CheckResponseSchema>;

const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

export function grpcAuthorizer(provider: ExtAuthzProvider, address: () => Address): Authorizer {
  let client: { readonly target: string; readonly made: ReturnType<typeof connect> } | null = null;
  const clientFor = (target: string): ReturnType<typeof connect> => {
    if (client?.target !== target) {
      client?.made.close();
      client = { target, made: connect(target) };
    }
    return client.made;
  };
  return {
    async check(check) {
      try {
        const answer = await call(clientFor(formatAddress(address())), check, provider);
        return readResponse(answer);
      } catch (error) {
        return { kind: "failed", message: (error as Error).message };
      }
    },
    close: () => client?.made.close(),
  };
}

const connect = (target: string) =>
  makeClient(Authorization, target, credentials.createInsecure(), {
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.enable_retries": 0,
  });

function call(client: ReturnType<typeof connect>, check: Check, provider: ExtAuthzProvider): Promise<Response> {
  return client.check(messageOf(check, provider), { deadlineMs: Math.min(provider.timeoutMs, 2 ** 31 - 1) });
}

function messageOf(check: Check, provider: ExtAuthzProvider) {
  const { source, destination, request, sni, startedMs } = check;
  const peer = ({ principal, ip, port }: { principal: string | null; ip: string; port: number }) => ({
    principal: principal ?? "",
    address: {
      address: { case: "socketAddress" as const, value: { address: ip, portSpecifier: portOf(port) } },
    },
  });
  const packs = provider.includeRequestBodyInCheck?.packAsBytes === true;
  return {
    attributes: {
      source: peer(source),
      destination: peer(destination),
      ...(sni === null ? {} : { tlsSession: { sni } }),
      request: {
        time: timestampFromMs(Math.floor(startedMs)),
        ...(request === null
          ? {}
          : {
              http: {
                id: request.id,
                method: request.method,
                headers: headersOf(check),
                path: wireText(request.path),
                host: request.host,
                scheme: request.scheme,
                size: BigInt(request.size),
                protocol: request.protocol,
                ...bodyOf(request.body?.bytes ?? null, packs),
              },
            }),
      },
    },
  };
}

const portOf = (port: number) => ({ case: "portValue" as const, value: Math.max(0, port) });

function bodyOf(bytes: Buffer | null, packs: boolean) {
  return bytes === null ? {} : packs ? { rawBody: new Uint8Array(bytes) } : { body: bytes.toString("utf8") };
}

function readResponse({ status, httpResponse }: Response): CheckResult {
  if ((status?.code ?? 0) === grpcStatus.OK) {
    const ok = httpResponse.case === "okResponse" ? httpResponse.value : null;
    return {
      kind: "allowed",
      headers: (ok?.headers ?? []).flatMap((option) => changeOf(option)),
      remove: (ok?.headersToRemove ?? []).map((name) => name.toLowerCase()),
      answerHeaders: (ok?.responseHeadersToAdd ?? [])
        .flatMap((option) => changeOf(option))
        .map(({ name, value }): [string, string] => [name, value]),
    };
  }
  const denied = httpResponse.case === "deniedResponse" ? httpResponse.value : null;
  return {
    kind: "denied",
    status: denied?.status?.code || 403,
    headers: (denied?.headers ?? [])
      .flatMap((option) => changeOf(option))
      .map(({ name, value }): [string, string] => [name, value]),
    body: Buffer.from(denied?.body ?? "", "utf8").toString("latin1"),
  };
}

const HOW = ["append", "add-if-absent", "overwrite", "overwrite-if-exists"] as const;

/** `append`, where it is set, says it all; unset, the default of both is to overwrite. SOURCE: ext_authz_grpc_impl.cc. */
function changeOf({ header, append, appendAction, keepEmptyValue }: HeaderValueOption): HeaderChange[] {
  if (header === undefined) {
    return [];
  }
  const raw = header.rawValue.length > 0 ? Buffer.from(header.rawValue) : Buffer.from(header.value, "utf8");
  const [name, value] = [header.key.toLowerCase(), raw.toString("latin1")];
  if (!isUsable(name, value) || (value === "" && !keepEmptyValue && header.value !== "")) {
    return [];
  }
  const how =
    append === undefined ? (appendAction === 0 ? "overwrite" : HOW[appendAction]) : append ? "append" : "overwrite";
  return [{ name, value, how: how ?? "overwrite" }];
}
