import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import type { Command } from "commander";
import { configError, EveryhopError, toEveryhopError } from "../core/base/errors.ts";
import { type Answer, Decider, type Prepared, verdictOf } from "../core/policy/decide.ts";
import { type DecisionRequest, idOf, readDecisionRequest } from "../core/policy/decision-request.ts";
import { parseResources } from "../core/policy/parse.ts";
import type { Resource } from "../core/policy/resources.ts";
import { readPolicyFiles } from "./policy-files.ts";
import { type JwksFlags, jwksOption, keySource } from "./policy-jwks.ts";
import { type MeshFlags, meshOptions, readMesh } from "./policy-mesh.ts";
import { print, printJson } from "./ui.ts";

interface Flags extends MeshFlags, JwksFlags {
  readonly policies: readonly string[];
  readonly requests: string;
  readonly explain?: boolean;
  readonly stats?: boolean;
  readonly json?: boolean;
}

export function defineDecide(policy: Command): void {
  const collect = (path: string, paths: readonly string[]): string[] => [...paths, path];
  jwksOption(
    meshOptions(
      policy
        .command("decide")
        .description("decide requests, one JSON line each, as a sidecar would")
        .requiredOption("--policies <path>", "file or folder of resources; may be repeated", collect, [])
        .requiredOption("--requests <file>", "JSON lines; - is standard input")
        .option("--explain", "with every compared field and, for a denial, the nearest miss"),
    ),
  )
    .option("--stats", "end with a line of measurements")
    .option("--json", "JSON lines")
    .action(async (flags: Flags) => {
      process.exitCode = await decide(flags);
    });
}

async function decide(flags: Flags): Promise<number> {
  if (flags.policies.length === 0) {
    throw new EveryhopError("usage", "--policies is missing", { hint: "name a file or folder of resources" });
  }
  const mesh = readMesh(flags);
  const { resources, issues } = parseResources(readPolicyFiles(flags.policies), mesh.meshConfig);
  const errors = issues.filter((issue) => issue.severity === "error");
  if (errors.length > 0) {
    throw configError(errors);
  }
  const options = { now: Date.now, keysOf: keySource(flags) };
  const decider = new Decider(resources, mesh, options);
  const kept: DecisionRequest[] = [];
  let malformed = 0;
  for await (const line of requestLines(flags.requests)) {
    const answer = answerLine(line, decider, flags, (request) => flags.stats && kept.push(request));
    malformed += "error" in answer ? 1 : 0;
    if (flags.json) {
      printJson(answer);
    } else {
      print(describe(answer));
    }
  }
  if (flags.stats) {
    const stats = measure(resources, new Decider(resources, mesh, options), kept);
    if (flags.json) {
      printJson({ stats });
    } else {
      print(
        `${stats.decisions} decisions, ${stats.nsPerDecision} ns each, ${stats.policies} policies compiled in ${stats.compileMs} ms`,
      );
    }
  }
  return malformed > 0 ? 2 : 0;
}

function requestLines(file: string): AsyncIterable<string> {
  const input = file === "-" ? process.stdin : createReadStream(file);
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  return {
    async *[Symbol.asyncIterator]() {
      const failed = new Promise<never>((_, reject) => {
        input.once("error", (error: Error) =>
          reject(new EveryhopError("file-missing", `cannot read \`${file}\`: ${error.message}`)),
        );
      });
      failed.catch(() => {});
      const iterator = lines[Symbol.asyncIterator]();
      for (;;) {
        const next = await Promise.race([iterator.next(), failed]);
        if (next.done) {
          return;
        }
        if (next.value.trim() !== "") {
          yield next.value;
        }
      }
    },
  };
}

interface Malformed {
  readonly id: string | number | null;
  readonly error: { readonly code: string; readonly message: string };
}

function answerLine(
  line: string,
  decider: Decider,
  flags: Flags,
  keep: (request: DecisionRequest) => void,
): Answer | Malformed {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    return { id: null, error: { code: "invalid-argument", message: `not JSON: ${(error as Error).message}` } };
  }
  try {
    const request = readDecisionRequest(value);
    keep(request);
    return decider.decide(request, { explain: flags.explain ?? false });
  } catch (error) {
    const { code, message } = toEveryhopError(error);
    return { id: idOf(value), error: { code, message } };
  }
}

function describe(answer: Answer | Malformed): string {
  if ("error" in answer) {
    return `${answer.id ?? "-"}  error  ${answer.error.message}`;
  }
  const { id, decision, status, reason, policy, rule, changes = [] } = answer;
  const where = policy === null ? "" : ` by ${policy}${rule === null ? "" : ` rule ${rule}`}`;
  const miss = changes
    .map(
      (change) => `\n    would ${change.would} (${change.policy}${change.rule === null ? "" : ` rule ${change.rule}`})`,
    )
    .join(", and");
  return `${id ?? "-"}  ${decision}  ${status}  ${reason}${where}${miss}`;
}

const ROUNDS = 4;
const ROUND_MS = 150;

/** Decisions alone, over and over: the parsing of lines and the facts are not in it. */
function measure(resources: readonly Resource[], decider: Decider, requests: readonly DecisionRequest[]) {
  const policies = resources.filter((resource) => resource.kind === "AuthorizationPolicy").length;
  const before = usedMicros();
  for (const request of requests) {
    const { http, tcp } = decider.compiledFor(request);
    void (request.request === null ? tcp : http);
  }
  const compileMs = Number(((usedMicros() - before) / 1_000).toFixed(3));
  const prepared = requests.map((request) => decider.prepare(request));
  return { policies, compileMs, decisions: requests.length, nsPerDecision: nsPerDecision(prepared) };
}

/** Processor time, so that what else runs on the machine is not in it; the best of some rounds, the first warms up. */
function nsPerDecision(prepared: readonly Prepared[]): number {
  if (prepared.length === 0) {
    return 0;
  }
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const until = performance.now() + ROUND_MS;
    const before = usedMicros();
    let passes = 0;
    do {
      for (let index = 0; index < prepared.length; index++) {
        verdictOf(prepared[index]!);
      }
      passes++;
    } while (performance.now() < until);
    best = round === 0 ? best : Math.min(best, ((usedMicros() - before) * 1_000) / (passes * prepared.length));
  }
  return Number(best.toFixed(1));
}

function usedMicros(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}
