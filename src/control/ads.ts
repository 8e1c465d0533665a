/** Delta ADS on the wire: envoy.service.discovery.v3 to and from core/xds. */
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { EveryhopError } from "../core/base/errors.ts";
import type { DeltaRequest } from "../core/xds/delta.ts";
import type {
  AggregatedDiscoveryService,
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
} from "../gen/envoy/service/discovery/v3/discovery_pb.js";
import type { Handlers } from "../io/rpc/adapter.ts";
import { toStatus } from "../io/rpc/errors.ts";
import type { Answer, Push, PushStream } from "./push.ts";

type Request = MessageShape<typeof DeltaDiscoveryRequestSchema>;
type Response = MessageInitShape<typeof DeltaDiscoveryResponseSchema>;
type Call = ServerDuplexStream<Request, Response>;

export function adsHandlers(push: Push): Handlers<typeof AggregatedDiscoveryService> {
  return { deltaAggregatedResources: (call) => serve(call, push) };
}

function serve(call: Call, push: Push): void {
  let stream: PushStream | null = null;
  let over = false;
  const close = (): void => {
    over = true;
    stream?.close();
  };
  const end = (error: unknown): void => {
    close();
    call.emit("error", toStatus(error));
  };
  call.on("data", (request: Request) => {
    if (over) {
      return;
    }
    try {
      stream ??= push.open(nodeOf(request), { send: (answer) => call.write(toWire(answer)), end });
      stream.receive(fromWire(request));
    } catch (error) {
      end(error);
    }
  });
  call.on("end", () => {
    close();
    call.end();
  });
  call.on("cancelled", close);
  call.on("error", close);
  call.on("close", close);
}

function nodeOf({ node }: Request): string {
  if (node === undefined || node.id === "") {
    throw new EveryhopError("invalid-argument", "the first request of a stream must carry `node.id`", {
      hint: "a sidecar's node id is `<namespace>/<service>`",
    });
  }
  return node.id;
}

function fromWire(request: Request): DeltaRequest {
  return {
    type: request.typeUrl,
    subscribe: request.resourceNamesSubscribe,
    unsubscribe: request.resourceNamesUnsubscribe,
    initialVersions: new Map(Object.entries(request.initialResourceVersions)),
    nonce: request.responseNonce,
    error: request.errorDetail === undefined ? null : clip(request.errorDetail.message),
  };
}

function toWire(answer: Answer): Response {
  return {
    systemVersionInfo: String(answer.world),
    typeUrl: answer.type,
    nonce: answer.nonce,
    resources: answer.resources.map(({ name, version, body }) => ({
      name,
      version,
      resource: { typeUrl: answer.type, value: body.bytes() },
    })),
    removedResources: [...answer.removed],
  };
}

const MAX_ERROR_LENGTH = 4_096;

function clip(message: string): string {
  return message === "" ? "refused without a reason" : message.slice(0, MAX_ERROR_LENGTH);
}
