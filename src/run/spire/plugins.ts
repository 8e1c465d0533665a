/** The `plugins` block of SPIRE's files: a table of type and name, and for each what its `plugin_data` becomes. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { formatIssue } from "../../core/base/errors.ts";
import { parseHcl } from "../../core/base/hcl.ts";
import { suggest } from "../../core/base/suggest.ts";
import { blocks, flag, type Rule, type Source, text, valueAt } from "./translation.ts";

/** What a plugin's `plugin_data` becomes. */
export type Plugins = Readonly<Record<string, Rule>>;
/** What is said of a plugin that SPIRE has and we do not. */
export interface PluginType {
  readonly plugins: Plugins;
  readonly missing: Readonly<Record<string, "error" | "warning">>;
  /** What to use instead. */
  readonly hint: string;
}

export type PluginTypes = Readonly<Record<string, PluginType>>;

export function plugins(types: PluginTypes): Rule {
  return (value, at) => {
    for (const [given, here] of blocks(value, at)) {
      for (const [name, ofType] of Object.entries(given)) {
        const type = Object.hasOwn(types, name) ? types[name] : undefined;
        if (type !== undefined) {
          readType(name, type, ofType, here.into(name));
        } else {
          const near = suggest(name, Object.keys(types));
          const known = `known are: ${Object.keys(types).join(", ")}`;
          here.into(name).error(`unknown plugin type \`${name}\``, near === null ? known : `did you mean \`${near}\`?`);
        }
      }
    }
  };
}

function readType(typeName: string, type: PluginType, value: unknown, at: Source): void {
  for (const [given, here] of blocks(value, at)) {
    for (const [name, body] of Object.entries(given)) {
      readPlugin(`${typeName} "${name}"`, name, type, body, here.into(name));
    }
  }
}

const PLUGIN_KEYS = ["plugin_cmd", "plugin_args", "plugin_checksum", "plugin_data", "plugin_data_file", "enabled"];

function readPlugin(title: string, name: string, type: PluginType, body: unknown, at: Source): void {
  const unknown = blocks(body, at).flatMap(([given, here]) =>
    Object.keys(given)
      .filter((key) => !PLUGIN_KEYS.includes(key))
      .map((key) => here.into(key)),
  );
  for (const key of unknown) {
    const near = suggest(key.key, PLUGIN_KEYS);
    key.error(
      `unknown key \`${key.key}\``,
      near === null ? "a plugin's own keys go in `plugin_data { … }`" : `did you mean \`${near}\`?`,
    );
  }
  const enabled = valueAt(body, at, "enabled");
  if (enabled !== null && flag(...enabled) === false) {
    return;
  }
  const command = valueAt(body, at, "plugin_cmd");
  if (command !== null) {
    command[1].error(`${title} is a program of its own, which is not run here`, type.hint);
    return;
  }
  const rule = Object.hasOwn(type.plugins, name) ? type.plugins[name] : undefined;
  if (rule === undefined) {
    refuse(title, name, type, at);
    return;
  }
  const file = valueAt(body, at, "plugin_data_file");
  const data = file === null ? valueAt(body, at, "plugin_data") : dataFile(...file);
  rule(data?.[0] ?? {}, data?.[1] ?? at);
}

function refuse(title: string, name: string, type: PluginType, at: Source): void {
  const severity = Object.hasOwn(type.missing, name) ? type.missing[name] : undefined;
  if (severity === "warning") {
    at.warn(`${title} is not there in everyhop, and is left out`, type.hint);
    return;
  }
  const known = [...Object.keys(type.plugins), ...Object.keys(type.missing)];
  const near = severity === undefined ? suggest(name, known) : null;
  const message = severity === undefined ? `${title} is not known` : `${title} is not there in everyhop`;
  at.error(message, near === null ? type.hint : `did you mean \`${near}\`?`);
}

/** SPEC: SPIRE: `plugin_data` in a file of its own; relative to the current folder. */
function dataFile(value: unknown, at: Source): readonly [unknown, Source] | null {
  const path = text(value, at);
  if (path === undefined) {
    return null;
  }
  try {
    const { documents, issues } = parseHcl(readFileSync(resolve(path), "utf8"), path);
    const [document] = documents;
    if (document !== undefined) {
      return [document.value, at];
    }
    at.error(issues.map(formatIssue).join("; "));
  } catch (error) {
    at.error(`cannot read \`${path}\`: ${(error as Error).message}`);
  }
  return null;
}
