/** `--workloads FILE`: a list of workloads, or PolicyTests, whose destinations they are. */
import { configError } from "../core/base/errors.ts";
import { integer, list, object, oneOf, optional, record, required, string, validate } from "../core/base/validate.ts";
import { parseYaml } from "../core/base/yaml.ts";
import type { MeshWorkload } from "../core/policy/lint/finding.ts";
import { parsePolicyTests } from "../core/policy/testing/policy-test.ts";
import { readText } from "./policy-files.ts";

const shape = list(
  object({
    name: optional(string()),
    namespace: required(string()),
    labels: optional(record(string())),
    port: optional(integer(1, 65_535)),
    protocol: optional(oneOf("http", "http2", "grpc", "tcp")),
    principal: optional(string()),
  }),
);

export function readWorkloadList(file: string): MeshWorkload[] {
  const text = readText(file);
  const { documents, issues } = parseYaml(text, file);
  if (issues.length > 0) {
    throw configError(issues);
  }
  return [
    ...documents
      .filter(({ value }) => Array.isArray(value))
      .flatMap((document): MeshWorkload[] => {
        const read = validate(shape, document);
        if (read.value === undefined) {
          throw configError(read.issues);
        }
        return read.value.map((workload) => ({ ...workload, labels: { ...workload.labels } }));
      }),
    ...ofTests(text, file),
  ];
}

function ofTests(text: string, file: string): MeshWorkload[] {
  const { tests, issues } = parsePolicyTests([{ file, text }]);
  if (issues.length > 0) {
    throw configError(issues);
  }
  const found = tests.flatMap(({ cases }) =>
    cases.map(({ request: { destination, request } }): MeshWorkload => {
      const { namespace, labels, name, port } = destination;
      return {
        namespace,
        labels,
        ...(name === null ? {} : { name }),
        ...(port === null ? {} : { port }),
        protocol: request === null ? "tcp" : "http",
      };
    }),
  );
  return [...new Map(found.map((workload) => [JSON.stringify(workload), workload])).values()];
}
