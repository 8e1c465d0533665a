import type { Command } from "commander";
import type { MeshWorkload } from "../core/policy/lint/finding.ts";
import { findingIssue, findingsOf } from "../core/policy/lint/findings.ts";
import { parseResources } from "../core/policy/parse.ts";
import { readPolicyFiles } from "./policy-files.ts";
import { type MeshFlags, meshOptions, readMesh, readWorkloads } from "./policy-mesh.ts";
import { readWorkloadList } from "./policy-workloads.ts";
import { formatIssueForPeople, note, print, printJson } from "./ui.ts";

const EXAMPLES = `
Examples:
  everyhop policy check policies/
  everyhop policy check policies/ --mesh everyhop.yaml --json
  everyhop policy check policies/ --workloads tests/payments.yaml
`;

interface Flags extends MeshFlags {
  readonly workloads?: string;
  readonly json?: boolean;
}

export function defineCheck(policy: Command): void {
  meshOptions(
    policy
      .command("check")
      .description("parse and lint resources; every issue with its place and a suggestion")
      .argument("<path...>", "files and folders of resources"),
  )
    .option("--workloads <file>", "workloads, or PolicyTests that name them: selectors are compared with these too")
    .addHelpText("after", EXAMPLES)
    .option("--json", "one JSON document")
    .action((paths: string[], flags: Flags) => {
      process.exitCode = check(paths, flags);
    });
}

/** Null where none are named: then nothing is said about what policies select. */
function knownWorkloads({ mesh, workloads }: Flags): MeshWorkload[] | null {
  return mesh === undefined && workloads === undefined
    ? null
    : [
        ...(mesh === undefined ? [] : readWorkloads(mesh)),
        ...(workloads === undefined ? [] : readWorkloadList(workloads)),
      ];
}

function check(paths: readonly string[], flags: Flags): number {
  const mesh = readMesh(flags);
  const { resources, issues: parsed, locate } = parseResources(readPolicyFiles(paths), mesh.meshConfig);
  const workloads = knownWorkloads(flags);
  const findings = findingsOf(resources, {
    meshConfig: mesh.meshConfig,
    ...(flags.mesh === undefined && flags.trustDomain === undefined ? {} : { trustDomain: mesh.trustDomain }),
    ...(workloads === null ? {} : { workloads }),
  });
  const issues = [...parsed, ...findings.map((finding) => findingIssue(finding, locate))];
  const ok = !issues.some((issue) => issue.severity === "error");
  if (flags.json) {
    printJson({ ok, resources: resources.length, issues });
  } else {
    for (const issue of issues) {
      note(formatIssueForPeople(issue));
    }
    print(`${resources.length} resources, ${issues.length} issues: ${ok ? "ok" : "not valid"}`);
  }
  return ok ? 0 : 2;
}
