/** Why a workload lacks a selector, in a sentence: the likely mistake, and what to write instead. */
import { suggest } from "../base/suggest.ts";
import type { Selector } from "./selector.ts";
import { NODE_TYPES, type SelectorParts, selectorParts, subjectOf, WORKLOAD_KINDS } from "./selector-kinds.ts";

/** What is known beside the selectors that were found. */
export interface HintFacts {
  /** The attestors that ran; null: those selectors were given by hand, or it is not known. */
  readonly attestors: readonly { readonly kind: string; readonly error: string | null }[] | null;
  /** When the program's file was last changed, as RFC 3339. */
  readonly programChangedAt?: string;
}

const INTERPRETER = /\/(?:node|nodejs|python[0-9.]*|pypy[0-9.]*|bash|sh|dash|zsh|ksh|ruby[0-9.]*|perl|java)$/;
const SCRIPT = /\.(?:[cm]?js|ts|py|sh|rb|pl|jar)$/;

/** Always a sentence without a full stop; `found` does not hold `missing`. */
export function hintFor(missing: Selector, found: Iterable<Selector>, facts: HintFacts): string {
  const wanted = selectorParts(missing);
  const have = [...found].map((selector) => selectorParts(selector));
  const same = have.filter((one) => subjectOf(one) === subjectOf(wanted));
  const context: Context = { missing, wanted, have, same, facts };
  const mistake = selectorMistake(missing);
  if (mistake !== null) {
    return mistake;
  }
  for (const rule of [notGiven, attestorTrouble, ofSecrets, spelling, ofUsers, ofPrograms, ofContainers]) {
    const hint = rule(context);
    if (hint !== null) {
      return hint;
    }
  }
  return otherwise(context);
}

/** What is wrong with a selector by itself, whatever the workload; null where some workload could have it. */
export function selectorMistake(selector: Selector): string | null {
  const context: Context = {
    missing: selector,
    wanted: selectorParts(selector),
    have: [],
    same: [],
    facts: { attestors: null },
  };
  return unknownType(context) ?? unknownKind(context) ?? notNumber(context) ?? notAbsolute(context);
}

export interface SelectorHint {
  readonly selector: Selector;
  readonly hint: string;
}

/** Those of `selectors` that no workload could have, each with why. */
export function mistakesOf(selectors: readonly Selector[]): SelectorHint[] {
  return selectors.flatMap((selector) => {
    const hint = selectorMistake(selector);
    return hint === null ? [] : [{ selector, hint }];
  });
}

interface Context {
  readonly missing: Selector;
  readonly wanted: SelectorParts;
  readonly have: readonly SelectorParts[];
  /** Those of the same kind, and key where it has one. */
  readonly same: readonly SelectorParts[];
  readonly facts: HintFacts;
}

function unknownType({ wanted: { type } }: Context): string | null {
  if (Object.hasOwn(WORKLOAD_KINDS, type)) {
    return null;
  }
  if (NODE_TYPES.includes(type)) {
    return `\`${type}\` selectors are of nodes, and no workload has one: they belong in an entry whose parent is the server`;
  }
  const near = suggest(type, Object.keys(WORKLOAD_KINDS));
  const known = `known are ${Object.keys(WORKLOAD_KINDS).join(", ")}`;
  return `no attestor finds selectors of the type \`${type}\`: ${near === null ? known : `did you mean \`${near}\`?`}`;
}

function unknownKind({ wanted: { type, kind, value } }: Context): string | null {
  const known = WORKLOAD_KINDS[type] ?? [];
  if (known.includes(kind)) {
    return null;
  }
  const near = suggest(kind === "" ? value : kind, known);
  const list = `it has ${known.join(", ")}`;
  return `\`${type}\` has no selectors \`${kind === "" ? value : kind}\`: ${near === null ? list : `did you mean \`${type}:${near}:…\`?`}`;
}

/** Of a process that is not there, nothing is known but what was given. */
function notGiven({ same, facts: { attestors } }: Context): string | null {
  return attestors === null && same.length === 0 ? "it is not among the selectors given" : null;
}

/** A container's environment may hold passwords, and a hint may be shown to anyone. */
function ofSecrets({ wanted: { type, kind, key }, same }: Context): string | null {
  return type === "docker" && kind === "env" && same.length > 0 ? `its \`${key}\` has another value` : null;
}

function attestorTrouble({ wanted: { type, kind }, have, facts: { attestors } }: Context): string | null {
  if (attestors === null) {
    return null;
  }
  const attestor = attestors.find((one) => one.kind === type);
  if (attestor === undefined) {
    return `this agent has no \`${type}\` attestor: add \`${type}: {}\` to its \`workloadAttestors\``;
  }
  if (attestor.error !== null) {
    return `the \`${type}\` attestor failed: ${attestor.error}`;
  }
  if (have.some((one) => one.type === type)) {
    return null;
  }
  const where: Readonly<Record<string, string>> = {
    docker: "the process is in no container of Docker or Podman",
    containerd: "the process is in no container",
    k8s: "the process is in no pod",
    systemd: "the process belongs to no systemd unit",
  };
  return where[type] ?? `the \`${type}\` attestor found nothing, no \`${kind}\` either`;
}

/** The same but for capitals or white space. */
function spelling({ wanted, same }: Context): string | null {
  const fold = (text: string) => text.trim().toLowerCase();
  const near = same.find(({ value }) => fold(value) === fold(wanted.value));
  if (near === undefined) {
    return wanted.value !== wanted.value.trim() ? "it begins or ends with white space" : null;
  }
  const what = near.value.toLowerCase() === wanted.value.toLowerCase() ? "capitals" : "white space";
  return `it differs in ${what} alone: the workload has \`${near.value}\``;
}

function notNumber({ wanted: { type, kind, value } }: Context): string | null {
  const named: Readonly<Record<string, string>> = {
    uid: "user",
    gid: "group",
    supplementary_gid: "supplementary_group",
  };
  return type === "unix" && Object.hasOwn(named, kind) && !/^\d+$/.test(value.trim())
    ? `a ${kind} is a number: for a name write \`unix:${named[kind]}:${value}\``
    : null;
}

function notAbsolute({ wanted: { type, kind, value } }: Context): string | null {
  const isPath = type === "unix" && /^(?:path|parent:path|script)$/.test(kind);
  return isPath && !value.trim().startsWith("/") ? "a path is absolute, with links resolved" : null;
}

function ofUsers({ missing, wanted: { type, kind, value }, have, same }: Context): string | null {
  if (type !== "unix" || !/^(?:uid|user|gid|group|supplementary_gid|supplementary_group)$/.test(kind)) {
    return null;
  }
  const isNumber = /^\d+$/.test(value);
  const supplementary = { gid: "supplementary_gid", group: "supplementary_group" }[kind];
  if (supplementary !== undefined && has(have, supplementary, value)) {
    return `the workload has it as a supplementary group: write \`unix:${supplementary}:${value}\``;
  }
  const primary = { supplementary_gid: "gid", supplementary_group: "group" }[kind];
  if (primary !== undefined && has(have, primary, value)) {
    return `the workload has it as its primary group: write \`unix:${primary}:${value}\``;
  }
  const number = { user: "uid", group: "gid" }[kind];
  if (number !== undefined && isNumber && has(have, number, value)) {
    return `\`${value}\` is a number: write \`unix:${number}:${value}\``;
  }
  if (kind === "uid" || kind === "user") {
    const uid = unixValue(have, "uid");
    const user = unixValue(have, "user");
    return uid === undefined
      ? null
      : `the process runs as ${user ?? `uid ${uid}, which has no name on this machine`}${user === undefined ? "" : ` (uid ${uid})`}`;
  }
  if (same.length > 0) {
    return `the process has ${same.map((one) => one.value).join(", ")}`;
  }
  return `the process has no such group: \`${missing}\``;
}

function ofPrograms({ wanted: { type, kind, value }, have, same, facts }: Context): string | null {
  if (type !== "unix") {
    return null;
  }
  const [actual] = same;
  const parent = kind.startsWith("parent:") ? "its parent" : "it";
  if (kind === "path" || kind === "parent:path") {
    if (actual === undefined) {
      return `the path of what ${parent} runs is not known: its file was removed or replaced since it started, lies in another mount namespace, or the agent may not look (it has to be root, or the same user)`;
    }
    const script = INTERPRETER.test(actual.value) && SCRIPT.test(value) ? `; a script is \`unix:script:${value}\`` : "";
    return `${parent} runs ${actual.value}, registered is ${value}${script}`;
  }
  if (kind === "sha256" || kind === "parent:sha256") {
    if (actual === undefined) {
      return `${parent} runs a program without a digest: larger than \`workloadSizeLimit\`, or one that the agent may not read`;
    }
    const path = unixValue(have, kind === "sha256" ? "path" : "parent:path") ?? "the file";
    const changed =
      facts.programChangedAt === undefined || kind !== "sha256" ? "" : `, last changed ${facts.programChangedAt}`;
    return `${path}${changed} has another digest: was it updated since the entry was made?`;
  }
  if (kind === "process") {
    return "that is another process, or an earlier one: entries that name a process end with it";
  }
  if ((kind === "script" || kind === "script:sha256") && actual === undefined) {
    const path = unixValue(have, "path");
    return path !== undefined && !INTERPRETER.test(path)
      ? `it runs ${path}, which is no interpreter: write \`unix:path:${path}\``
      : "its command line names no script that the agent can find";
  }
  return null;
}

/** Images have long names, and runtimes give the whole of them. */
function ofContainers({ wanted: { type, kind, value, key }, same, have }: Context): string | null {
  if (/image/.test(kind) && !/count$/.test(kind)) {
    const longer = same.find(
      (one) =>
        one.value.endsWith(`/${value}`) || one.value.startsWith(`${value}:`) || one.value.endsWith(`/${value}:latest`),
    );
    return longer === undefined
      ? null
      : `the runtime gives the image's whole name: write \`${type}:${kind}:${longer.value}\``;
  }
  if (key !== "" && same.length === 0) {
    const keys = have.filter((one) => one.type === type && one.kind === kind).map((one) => one.key);
    const near = suggest(key, keys);
    return `it has no ${kind} \`${key}\`${near === null ? "" : `: did you mean \`${near}\`?`}`;
  }
  return null;
}

function otherwise({ wanted: { kind, key }, same }: Context): string {
  const what = key === "" ? kind : `${kind} \`${key}\``;
  return same.length === 0
    ? `it has no ${what}`
    : `its ${what} is ${same
        .slice(0, 5)
        .map(({ value }) => `\`${value}\``)
        .join(", ")}`;
}

function has(have: readonly SelectorParts[], kind: string, value: string): boolean {
  return have.some((one) => one.type === "unix" && one.kind === kind && one.value === value);
}

function unixValue(have: readonly SelectorParts[], kind: string): string | undefined {
  return have.find((one) => one.type === "unix" && one.kind === kind)?.value;
}
