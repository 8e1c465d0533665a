/** `upstreamAuthority:` in the server's configuration. */
import { resolve } from "node:path";
import { object, oneOf, optional, required, string } from "../core/base/validate.ts";
import type { UpstreamConfig } from "../identity/server/upstream/open.ts";

const path = string({ what: "a path" });
const socket = string({ pattern: /^(unix:(\/\/)?)?\//, what: "a unix socket, as `unix:///run/everyhop/agent.sock`" });

export const upstreamShape = object({
  kind: required(oneOf("disk", "spire")),
  certFile: optional(path),
  keyFile: optional(path),
  bundleFile: optional(path),
  server: optional(string({ pattern: /^\S+:\d{1,5}$/, what: "an address `host:port`" })),
  workloadApiSocket: optional(socket),
});

type Given = NonNullable<ReturnType<typeof upstreamShape.read>>;

const FIELDS = {
  disk: { needed: ["certFile", "keyFile"], allowed: ["kind", "certFile", "keyFile", "bundleFile"] },
  spire: { needed: ["server", "workloadApiSocket"], allowed: ["kind", "server", "workloadApiSocket"] },
} as const;

/** What the kind needs and is not there, and what is there and means nothing with it. */
export function upstreamFaults(
  given: Given | undefined,
): readonly { readonly field: string; readonly message: string }[] {
  if (given === undefined) {
    return [];
  }
  const { needed, allowed } = FIELDS[given.kind];
  const there = Object.entries(given)
    .filter(([, value]) => value !== undefined)
    .map(([name]) => name);
  return [
    ...needed
      .filter((field) => !there.includes(field))
      .map((field) => ({ field: "kind", message: `\`kind: ${given.kind}\` needs \`${field}\`` })),
    ...there
      .filter((field) => !(allowed as readonly string[]).includes(field))
      .map((field) => ({ field, message: `\`${field}\` means nothing with \`kind: ${given.kind}\`` })),
  ];
}

/** With absolute paths. */
export function upstreamConfig(given: Given | undefined, dir: string): UpstreamConfig | null {
  if (given === undefined) {
    return null;
  }
  const { certFile = "", keyFile = "", bundleFile, server = "", workloadApiSocket = "" } = given;
  return given.kind === "spire"
    ? { kind: "spire", server, workloadApiSocket }
    : {
        kind: "disk",
        certFile: resolve(dir, certFile),
        keyFile: resolve(dir, keyFile),
        ...(bundleFile === undefined ? {} : { bundleFile: resolve(dir, bundleFile) }),
      };
}
