import type { Command } from "commander";
import { findingIssue, findingsOf } from "../core/policy/lint/findings.ts";
import { parseResources } from "../core/policy/parse.ts";
import { readPolicyFiles } from "./policy-files.ts";
import { type MeshFlags, meshOptions, readMesh, readWorkloads } from "./policy-mesh.ts";
import { formatIssueForPeople, note, print, printJson } from "./ui.ts";

interface Flags extends MeshFlags {
  readonly json?: boolean;
}

export function defineCheck(policy: Command): void {
  meshOptions(
    policy
      .command("check")
      .description("parse and lint resources; every issue with its place and a suggestion")
      .argument("<path...>", "files and folders of resources"),
  )
    .option("--json", "one JSON document")
    .action((paths: string[], flags: Flags) => {
      process.exitCode = check(paths, flags);
    });
}

function check(paths: readonly string[], flags: Flags): number {
  const mesh = readMesh(flags);
  const { resources, issues: parsed, locate } = parseResources(readPolicyFiles(paths), mesh.meshConfig);
  const workloads = flags.mesh === undefined ? {} : { workloads: readWorkloads(flags.mesh) };
  const findings = findingsOf(resources, { meshConfig: mesh.meshConfig, ...workloads });
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
