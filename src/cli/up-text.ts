/** What `everyhop up` says to people. */
import type { MeshDocument } from "../run/up/document.ts";
import type { UpEvent } from "../run/up/mesh-run.ts";
import { exitText } from "../run/up/ready.ts";
import { table } from "./ui.ts";

export function eventText(event: Exclude<UpEvent, { kind: "access" }>): string {
  switch (event.kind) {
    case "step":
      return `  ${(event.elapsedMs / 1000).toFixed(1).padStart(4)} s  ${event.text}`;
    case "note":
      return `  note: ${event.text}`;
    case "restart":
      return `  ${event.title} ${event.text}`;
    case "service-ended": {
      const last = event.lines.slice(-5).map((line) => `\n      ${line}`);
      return `  service \`${event.service}\` ${exitText(event.exit)}; the others run on, and its identity is gone${last.join("")}`;
    }
  }
}

/** Addresses, what to try, and what this mode does not protect against. */
export function readyText(document: MeshDocument, tries: readonly string[], dir: string): string {
  const rows = [["SERVICE", "PORT", "IDENTITY", "ITS PROCESS", "SIDECAR (mTLS)", "METRICS"]];
  for (const [name, { port, spiffeId, app, inbound, metrics }] of Object.entries(document.services)) {
    rows.push([name, String(port), spiffeId, app, inbound, metrics]);
  }
  const suggestions = tries.map((text) => `  ${fillIn(text, document, dir)}`);
  return [
    "",
    `ready in ${(document.readyMs / 1000).toFixed(1)} s: ${rows.length - 1} services in trust domain ${document.trustDomain}`,
    "",
    table(rows),
    "",
    ...reachText(document),
    `status: everyhop status --dir ${dir}   logs: ${document.stateDir}/logs   admin: ${document.admin}`,
    ...(suggestions.length === 0 ? [] : ["", "try:", ...suggestions]),
    "",
    ...honestText(document),
  ].join("\n");
}

function reachText({ isolated }: MeshDocument): string[] {
  return isolated
    ? [
        "A service reaches another by its plain name and port, as in http://payment-service:8080: the kernel hands it to the sidecar.",
      ]
    : ["A service reaches another at $EVERYHOP_<NAME>_URL (or _ADDR), which is its own sidecar's listener."];
}

function honestText({ isolated }: MeshDocument): string[] {
  return isolated
    ? [
        "Each service has a network namespace and a user of its own: what goes around its sidecar is dropped by the kernel.",
      ]
    : [
        "note: on loopback and under one user, any local process can dial a service's own port or another one's outbound",
        "listener, past the sidecars. `--isolate` (Linux, root) closes that in the kernel.",
      ];
}

/**
 * `{service}` is where its process listens; `{service.inbound}`, `{service.metrics}` and `{service.pid}` are there too. What
 * only that process's own namespace reaches is asked from inside.
 */
export function fillIn(text: string, document: MeshDocument, dir: string): string {
  let inside: string | null = null;
  const filled = text.replace(
    PLACEHOLDER,
    (whole, name: string, part: "app" | "inbound" | "metrics" | "pid" = "app") => {
      const service = Object.hasOwn(document.services, name) ? document.services[name] : undefined;
      if (service !== undefined && part === "app") {
        inside ??= name;
      }
      return service === undefined ? whole : String(service[part]);
    },
  );
  return document.isolated && inside !== null ? `everyhop exec ${inside} --dir ${dir} -- ${filled}` : filled;
}

const PLACEHOLDER = /\{([a-z0-9-]+)(?:\.(app|inbound|metrics|pid))?\}/g;

/**
 * A line of a sidecar's access log as people read it; null where there is nothing to say: what the calling side logs is told
 * by the called side, unless it ended there.
 */
export function accessLine(service: string, line: string): string | null {
  if (!line.startsWith("{")) {
    return null;
  }
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return null;
  }
  const text = (key: string): string => (entry[key] == null ? "-" : String(entry[key]));
  const refusedHere = entry.direction === "outbound" && entry.decision === "deny";
  if (entry.start_time === undefined || !(entry.direction === "inbound" || refusedHere)) {
    return null;
  }
  const source = text("source_principal").replace(/^spiffe:\/\//, "");
  const what = entry.protocol === "TCP" ? "TCP" : `${text("method")} ${text("path")} ${text("response_code")}`;
  const decision = entry.decision == null ? text("response_code_details") : text("decision");
  const why = entry.denial == null ? "" : `  ${text("reason")}: everyhop why ${text("denial")}`;
  const time = text("start_time").slice(11, 19);
  return `${time}  ${decision.padEnd(5)}  ${source === "-" ? "(nobody proven)" : source} -> ${service}  ${what}${why}`;
}
