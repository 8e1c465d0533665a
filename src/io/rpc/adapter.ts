/** gRPC services and clients from protobuf descriptors: protobuf-es messages over @grpc/grpc-js. */
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import {
  type ChannelCredentials,
  type ChannelOptions,
  type Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  makeGenericClientConstructor,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";

/** grpc-js service definition of a protobuf service. A handler may answer with bytes already encoded. */
export function serviceDefinition(service: DescService): ServiceDefinition<UntypedServiceImplementation> {
  const definition: Record<string, MethodDefinition<unknown, unknown>> = {};
  for (const method of service.methods) {
    definition[method.localName] = methodDefinition(service, method);
  }
  return definition as ServiceDefinition<UntypedServiceImplementation>;
}

function methodDefinition(service: DescService, method: DescMethod): MethodDefinition<unknown, unknown> {
  return {
    path: `/${service.typeName}/${method.name}`,
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: encoder(method.input),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: encoder(method.output),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  };
}

function encoder(schema: DescMessage): (message: unknown) => Buffer {
  return (message) => {
    if (Buffer.isBuffer(message)) {
      return message;
    }
    const bytes = toBinary(schema, create(schema, message as MessageInitShape<DescMessage>));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

type Handler<M extends GenServiceMethods[string]> = M["methodKind"] extends "unary"
  ? handleUnaryCall<MessageShape<M["input"]>, MessageInitShape<M["output"]>>
  : M["methodKind"] extends "server_streaming"
    ? handleServerStreamingCall<MessageShape<M["input"]>, MessageInitShape<M["output"]>>
    : handleBidiStreamingCall<MessageShape<M["input"]>, MessageInitShape<M["output"]>>;

/** The grpc-js handlers of a service, by local method name. */
export type Handlers<S> = S extends GenService<infer M> ? { [K in keyof M]: Handler<M[K]> } : never;

export interface CallOptions {
  readonly deadlineMs?: number;
  readonly metadata?: Metadata;
}

type Call<M extends GenServiceMethods[string]> = M["methodKind"] extends "unary"
  ? (request: MessageInitShape<M["input"]>, options?: CallOptions) => Promise<MessageShape<M["output"]>>
  : M["methodKind"] extends "server_streaming"
    ? (request: MessageInitShape<M["input"]>, options?: CallOptions) => ClientReadableStream<MessageShape<M["output"]>>
    : (options?: CallOptions) => ClientDuplexStream<MessageInitShape<M["input"]>, MessageShape<M["output"]>>;

export type RpcClient<S> = S extends GenService<infer M> ? { [K in keyof M]: Call<M[K]> } & { close(): void } : never;

/**
 * A client of `service` at `target` (`unix:/path` or `host:port`). Unary calls have a deadline (default 10 s) and reject with
 * grpc-js's ServiceError. Pass `share` to use another client's connection.
 */
export function makeClient<M extends GenServiceMethods>(
  service: GenService<M>,
  target: string,
  credentials: ChannelCredentials,
  options: ChannelOptions & { share?: { readonly channel: Client } } = {},
): RpcClient<GenService<M>> & { readonly channel: Client } {
  const { share, ...channelOptions } = options;
  const GenericClient = makeGenericClientConstructor({}, service.typeName);
  const client: Client = share?.channel ?? new GenericClient(target, credentials, channelOptions);
  // RACE: a channel closed in the turn that began its first call would connect all the same, and nobody could end that.
  const close = () => void setImmediate(() => client.close());
  const calls: Record<string, unknown> = { channel: client, close };
  for (const method of service.methods) {
    calls[method.localName] = makeCall(client, method, methodDefinition(service, method));
  }
  return calls as RpcClient<GenService<M>> & { readonly channel: Client };
}

const DEFAULT_DEADLINE_MS = 10_000;

function makeCall(client: Client, method: DescMethod, definition: MethodDefinition<unknown, unknown>): unknown {
  const { path, requestSerialize, responseDeserialize } = definition;
  const deadline = (options?: CallOptions) =>
    options?.deadlineMs === undefined ? {} : { deadline: Date.now() + options.deadlineMs };
  const meta = (options?: CallOptions) => options?.metadata ?? new Metadata();
  switch (method.methodKind) {
    case "unary":
      return (request: unknown, options?: CallOptions) =>
        new Promise((resolve, reject) => {
          const limit = deadline({ deadlineMs: DEFAULT_DEADLINE_MS, ...options });
          client.makeUnaryRequest(
            path,
            requestSerialize,
            responseDeserialize,
            request,
            meta(options),
            limit,
            (error, reply) => (error === null ? resolve(reply) : reject(error)),
          );
        });
    case "server_streaming":
      return (request: unknown, options?: CallOptions) =>
        client.makeServerStreamRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          meta(options),
          deadline(options),
        );
    default:
      return (options?: CallOptions) =>
        client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, meta(options), deadline(options));
  }
}
