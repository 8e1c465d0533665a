/**
 * The house stands: who may import whom, read off the sources themselves in well under a second.
 * Run: node tools/layers.ts. The table is LAYERS; ARCHITECTURE.md carries a copy that is compared.
 */
import { existsSync, globSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { importsOf, lineAt, mask } from "./scan.ts";

/** Top to bottom: a file imports from its own folder or a lower line; folders on one line do not know each other. */
export const LAYERS: readonly (readonly string[])[] = [
  ["cli"],
  ["run"],
  ["gateway"],
  ["identity/agent", "identity/server", "control", "proxy", "kubernetes"],
  ["workload", "identity/attest", "identity/authority", "identity/signer"],
  ["identity/intent"],
  ["io"],
  ["gen"],
  ["core/api"],
  ["core/rollout", "core/alerts"],
  ["core/analysis"],
  ["core/traffic"],
  ["core/entries", "core/policy"],
  ["core/spiffe"],
  ["core/x509", "core/jose", "core/tlog", "core/xds"],
  ["core/base"],
];

const SIGNING = ["identity/signer", "io/keys", "io/pkcs11"];

/** A security property, on the transitive imports: a sidecar that is taken over cannot sign, because the code is not there. */
export const NEVER_REACHES: readonly { readonly from: string; readonly to: readonly string[] }[] = [
  { from: "proxy", to: ["identity/authority", "identity/signer", "identity/server", "control", "io/store", "io/keys"] },
  {
    from: "gateway",
    to: ["identity/authority", "identity/signer", "identity/server", "control", "io/store", "io/keys"],
  },
  { from: "identity/agent", to: ["identity/authority", "identity/signer", "io/store", "control"] },
  // What answers peers, and all that it is made of, holds no key: those are the signer's, in a process of its own.
  { from: "identity/authority", to: SIGNING },
  { from: "identity/server", to: SIGNING },
  { from: "control", to: SIGNING },
  { from: "run/server", to: SIGNING },
];

/**
 * Folders of core that may use node:crypto, and nothing else of Node: hashes and signature checks are pure functions of
 * their arguments, and an implementation of our own would be slower and less trusted.
 */
const CORE_CRYPTO = ["core/x509", "core/jose", "core/tlog", "core/spiffe"];

/** The packages core may use: pure ones. */
const CORE_PACKAGES = ["yaml"];

/** What makes a function's answer depend on more than its arguments. */
const IMPURE =
  /(?<![\w$.])(?:Date\.now|new Date\(\s*\)|Math\.random|performance\.|process\.|setTimeout|setInterval|setImmediate|fetch\(|crypto\.getRandomValues|randomBytes|randomUUID|randomInt|randomFill|generateKey)/g;

export interface Violation {
  readonly file: string;
  readonly line: number;
  readonly message: string;
  /** Import chain, first to last. */
  readonly chain: readonly string[];
}

interface Edge {
  readonly to: string;
  readonly line: number;
}

interface Module {
  readonly path: string;
  readonly folder: string;
  readonly test: boolean;
  readonly edges: readonly Edge[];
  /** Specifiers that are no file of ours: `node:fs`, `yaml`. */
  readonly outside: readonly Edge[];
}

/** Tests, and what only tests import. They may import from any layer, and take no part in what ships. */
export function isTest(path: string): boolean {
  return /\.test\.ts$|(^|[/.-])fixtures?(\.ts$|\/)/.test(path);
}

const FOLDERS = LAYERS.flat();

/** The folder of the table that `path` lies in (`web` for the dashboard), or null. */
export function folderOf(path: string): string | null {
  if (path.startsWith("web/")) {
    return "web";
  }
  const inside = path.startsWith("src/") ? path.slice(4) : null;
  return FOLDERS.find((folder) => inside?.startsWith(`${folder}/`)) ?? null;
}

const rank = (folder: string): number => LAYERS.findIndex((line) => line.includes(folder));

const lies = (path: string, place: string): boolean =>
  path.startsWith(`src/${place}/`) || path === `src/${place}.ts` || path.startsWith(`src/${place}.`);

/** All violations in `files` (path from the project's root → text), in order of file and line. */
export function checkLayers(files: ReadonlyMap<string, string>): Violation[] {
  const violations: Violation[] = [];
  const modules = new Map<string, Module>();
  for (const [path, text] of files) {
    const folder = folderOf(path);
    if (folder === null) {
      violations.push({ file: path, line: 1, message: "lies in no folder of the layer table", chain: [] });
      continue;
    }
    modules.set(path, scan(path, folder, text, files, violations));
  }
  for (const module of modules.values()) {
    checkEdges(module, modules, violations);
  }
  checkReach(modules, violations);
  checkCycles(modules, violations);
  return violations.sort((a, b) => a.file.localeCompare(b.file) || a.line - b.line);
}

function scan(
  path: string,
  folder: string,
  text: string,
  files: ReadonlyMap<string, string>,
  violations: Violation[],
): Module {
  const test = isTest(path);
  if (folder === "gen") {
    return { path, folder, test: false, edges: [], outside: [] };
  }
  const masked = mask(text);
  const edges: Edge[] = [];
  const outside: Edge[] = [];
  const report = (line: number, message: string): void => {
    violations.push({ file: path, line, message, chain: [] });
  };
  for (const { specifier, line } of importsOf(text, masked)) {
    if (specifier === null) {
      report(line, "imports a computed name: write it out, so that layers can be seen");
    } else if (!specifier.startsWith(".")) {
      outside.push({ to: specifier, line });
    } else {
      const to = posix.join(posix.dirname(path), specifier);
      if (files.has(to)) {
        edges.push({ to, line });
      } else if (!test && (to.startsWith("../") || !/^(src|web)\//.test(to))) {
        report(line, `imports \`${to}\`, which does not ship`);
      }
    }
  }
  if (!test && folder.startsWith("core/")) {
    checkPure(folder, text, masked, outside, report);
  }
  return { path, folder, test, edges, outside };
}

function checkPure(
  folder: string,
  text: string,
  masked: string,
  outside: readonly Edge[],
  report: (line: number, message: string) => void,
): void {
  for (const { to, line } of outside) {
    const allowed = CORE_PACKAGES.includes(to) || (to === "node:crypto" && CORE_CRYPTO.includes(folder));
    if (!allowed) {
      report(line, `core is pure, and \`${to}\` is not: take what it gives as an argument, or move this to io`);
    }
  }
  const at = lineAt(text);
  for (const match of masked.matchAll(IMPURE)) {
    report(
      at(match.index),
      `core is pure: \`${match[0].replace("(", "")}\` belongs to the edge; take it as an argument`,
    );
  }
}

function checkEdges(module: Module, modules: ReadonlyMap<string, Module>, violations: Violation[]): void {
  if (module.test) {
    return;
  }
  for (const { to, line } of module.edges) {
    const target = modules.get(to);
    if (target === undefined) {
      continue;
    }
    const chain = [module.path, to];
    if (target.test) {
      violations.push({ file: module.path, line, message: `imports \`${to}\`, which is for tests only`, chain });
    } else if (target.folder !== module.folder && !mayImport(module.folder, target.folder)) {
      const relation = rank(module.folder) === rank(target.folder) ? "on the same line as" : "above";
      const message =
        module.folder === "web"
          ? `web imports core only, not \`${target.folder}\``
          : `${module.folder} may not import ${target.folder}, which stands ${relation} it`;
      violations.push({ file: module.path, line, message, chain });
    }
  }
}

function mayImport(from: string, to: string): boolean {
  return from === "web" ? to.startsWith("core/") : to !== "web" && rank(to) > rank(from);
}

function checkReach(modules: ReadonlyMap<string, Module>, violations: Violation[]): void {
  for (const { from, to } of NEVER_REACHES) {
    for (const place of to) {
      const chain = shortest(modules, from, (module) => lies(module.path, place));
      if (chain !== null) {
        violations.push(reached(modules, chain, `${from} reaches ${place}, which it never may`));
      }
    }
  }
  const chain = shortest(modules, "web", (module) => module.outside.some(({ to }) => to.startsWith("node:")));
  if (chain !== null) {
    const last = modules.get(chain.at(-1) as string);
    const what = last?.outside.find(({ to }) => to.startsWith("node:"))?.to ?? "";
    violations.push(reached(modules, [...chain, what], `web reaches ${what}, which a browser does not have`));
  }
}

function reached(modules: ReadonlyMap<string, Module>, chain: readonly string[], message: string): Violation {
  const file = chain[0] as string;
  const line = modules.get(file)?.edges.find((edge) => edge.to === chain[1])?.line ?? 1;
  return { file, line, message, chain };
}

/** The shortest import chain from any file of `place` (a folder, or a file of one) to a module that `wanted` names, or null. */
function shortest(
  modules: ReadonlyMap<string, Module>,
  place: string,
  wanted: (module: Module) => boolean,
): string[] | null {
  const cameFrom = new Map<string, string | null>();
  for (const module of modules.values()) {
    if ((module.folder === place || module.path === `src/${place}.ts`) && !module.test) {
      cameFrom.set(module.path, null);
    }
  }
  for (const path of cameFrom.keys()) {
    const module = modules.get(path);
    if (module === undefined) {
      continue;
    }
    if (wanted(module)) {
      const chain = [path];
      for (let back = cameFrom.get(path); back; back = cameFrom.get(back)) {
        chain.unshift(back);
      }
      return chain;
    }
    for (const { to } of module.edges) {
      if (!cameFrom.has(to)) {
        cameFrom.set(to, path);
      }
    }
  }
  return null;
}

/** Cycles, tests included: one per knot, by depth-first search with the path in hand. */
function checkCycles(modules: ReadonlyMap<string, Module>, violations: Violation[]): void {
  const done = new Set<string>();
  const onPath = new Map<string, number>();
  const path: string[] = [];
  const visit = (file: string): void => {
    onPath.set(file, path.length);
    path.push(file);
    for (const { to, line } of modules.get(file)?.edges ?? []) {
      const start = onPath.get(to);
      if (start !== undefined) {
        const chain = [...path.slice(start), to];
        violations.push({ file, line, message: "imports in a circle (type imports count)", chain });
      } else if (!done.has(to)) {
        visit(to);
      }
    }
    path.pop();
    onPath.delete(file);
    done.add(file);
  };
  for (const file of modules.keys()) {
    if (!done.has(file)) {
      visit(file);
    }
  }
}

/** The table as documents write it: one line per layer. */
export function formatTable(): string {
  return LAYERS.map((line) => line.join(" · ")).join("\n");
}

/** Whether `markdown` holds the table, as a fenced block of its own; null where it does. */
export function compareTable(markdown: string): string | null {
  const blocks = [...markdown.matchAll(/^```[a-z]*\n([\s\S]*?)^```/gm)].map((match) => match[1]?.trim());
  return blocks.includes(formatTable()) ? null : `its layer table is not the one of tools/layers.ts:\n${formatTable()}`;
}

export function formatViolation(violation: Violation): string {
  const chain = violation.chain.length === 0 ? "" : `\n    ${violation.chain.join("\n    → ")}`;
  return `${violation.file}:${violation.line}: ${violation.message}${chain}`;
}

/** The sources under `root`, path → text; generated code by name only. */
export function readSources(root: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const pattern of ["src/**/*.{ts,tsx,js}", "web/**/*.{ts,tsx,js}"]) {
    for (const path of globSync(pattern, { cwd: root }).sort()) {
      const name = path.replaceAll("\\", "/");
      files.set(name, name.startsWith("src/gen/") ? "" : readFileSync(`${root}/${path}`, "utf8"));
    }
  }
  return files;
}

function main(root: string): number {
  const start = performance.now();
  const files = readSources(root);
  const faults = checkLayers(files).map(formatViolation);
  const architecture = `${root}/ARCHITECTURE.md`;
  const difference = existsSync(architecture) ? compareTable(readFileSync(architecture, "utf8")) : null;
  if (difference !== null) {
    faults.push(`ARCHITECTURE.md: ${difference}`);
  }
  for (const fault of faults) {
    console.error(fault);
  }
  const ms = Math.round(performance.now() - start);
  console.log(
    `layers: ${files.size} files, ${faults.length === 0 ? "in order" : `${faults.length} faults`} (${ms} ms)`,
  );
  return faults.length === 0 ? 0 : 1;
}

if (import.meta.main) {
  process.exitCode = main(process.cwd());
}
