/** gRPC server reflection: which services a socket has, and what they look like. SPEC: gRPC, grpc.reflection.v1 and v1alpha. */
import { type DescFile, type DescService, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { type ServerDuplexStream, status as Status } from "@grpc/grpc-js";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "../../gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.js";
import type { Service } from "./listen.ts";

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;
type Call = ServerDuplexStream<ServerReflectionRequest, MessageInitShape<typeof ServerReflectionResponseSchema>>;

/** Both versions of the service, telling of `services` and of themselves. */
export function reflectionServices(services: readonly DescService[]): Service[] {
  const told = new Told([...services, ServerReflection, ServerReflectionAlpha]);
  const serverReflectionInfo = (call: Call): void => {
    call.on("data", (request: ServerReflectionRequest) => {
      // A caller that asks and does not read waits: answers are larger than questions.
      if (!call.write({ validHost: request.host, originalRequest: request, messageResponse: told.answer(request) })) {
        call.pause();
      }
    });
    call.on("drain", () => call.resume());
    call.on("end", () => call.end());
  };
  return [ServerReflection, ServerReflectionAlpha].map((service) => ({ service, handlers: { serverReflectionInfo } }));
}

class Told {
  readonly #services: readonly DescService[];
  readonly #files = new Map<string, DescFile>();
  readonly #symbols = new Map<string, DescFile>();

  constructor(services: readonly DescService[]) {
    this.#services = services;
    for (const { file } of services) {
      this.#learn(file);
    }
  }

  answer({ messageRequest: { case: kind, value } }: ServerReflectionRequest): Answer {
    if (kind === "listServices") {
      const service = this.#services.map(({ typeName: name }) => ({ name }));
      return { case: "listServicesResponse", value: { service } };
    }
    if (kind !== "fileByFilename" && kind !== "fileContainingSymbol") {
      return error(Status.UNIMPLEMENTED, "there are no extensions");
    }
    const file = (kind === "fileByFilename" ? this.#files : this.#symbols).get(value);
    if (file === undefined) {
      return error(Status.NOT_FOUND, "not known here");
    }
    const fileDescriptorProto = [...withDependencies(file)].map(({ proto }) =>
      toBinary(FileDescriptorProtoSchema, proto),
    );
    return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
  }

  #learn(file: DescFile): void {
    for (const one of withDependencies(file)) {
      this.#files.set(one.proto.name ?? "", one);
      const types = [...one.messages, ...one.messages.flatMap(({ nestedMessages }) => nestedMessages), ...one.enums];
      for (const { typeName } of [...types, ...one.services]) {
        this.#symbols.set(typeName, one);
      }
      for (const { typeName, methods } of one.services) {
        for (const { name } of methods) {
          this.#symbols.set(`${typeName}.${name}`, one);
        }
      }
    }
  }
}

function withDependencies(file: DescFile, seen = new Set<DescFile>()): Set<DescFile> {
  if (!seen.has(file)) {
    seen.add(file);
    for (const dependency of file.dependencies) {
      withDependencies(dependency, seen);
    }
  }
  return seen;
}

function error(errorCode: number, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
