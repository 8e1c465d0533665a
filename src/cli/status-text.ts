/** `everyhop status` and `why` as people read them. */
import type { DenialDocument, IdentityStatus, KillDocument, StatusDocument, WhyDocument } from "../core/api/admin.ts";
import { formatDuration } from "../core/base/duration.ts";
import type { Issue } from "../core/base/errors.ts";
import { printable } from "./printable.ts";
import { formatIssueForPeople, table } from "./ui.ts";

const DENIALS_SHOWN = 10;

function issues(title: string, found: readonly Issue[]): string {
  return found.length === 0 ? "" : `${title}\n${found.map(formatIssueForPeople).join("\n")}`;
}

export function statusText(status: StatusDocument, now: number): string {
  const { version, trustDomain, proxies, problems } = status;
  const synced = proxies.filter(({ state }) => state === "synced").length;
  const sections = [
    `mesh ${trustDomain}, version ${version}: ${synced} of ${proxies.length} sidecars in sync`,
    issues(
      "Problems",
      problems.filter(({ file }) => file === undefined),
    ),
    issues(
      "Refused (the last good state stays in force)",
      problems.filter(({ file }) => file !== undefined),
    ),
    section("Identities", [
      ["SERVICE", "SPIFFE ID", "SERIAL", "EXPIRES"],
      ...status.identities.map((identity) => identityRow(identity, now)),
    ]),
    section("Sidecars", [
      ["SERVICE", "STATE", "VERSION", "ERROR"],
      ...proxies.map(({ service, state, version: held, error }) => [
        service,
        state,
        held === 0 ? "-" : String(held),
        printable(error ?? ""),
      ]),
    ]),
    section("Policies", [
      ["NAME", "KIND", "SOURCE", "FINDINGS"],
      ...status.policies.map(({ name, kind, source, findings }) => [
        name,
        kind,
        source,
        findings.length === 0 ? "none" : String(findings.length),
      ]),
    ]),
    status.policies.flatMap(({ findings }) => findings.map(formatIssueForPeople)).join("\n"),
    section("Cut off", [
      ["SPIFFE ID", "SINCE"],
      ...status.kills.map(({ spiffeId, since }) => [spiffeId, `${ago(since, now)} ago`]),
    ]),
    section("Last denials", [
      ["ID", "AGO", "SOURCE", "DESTINATION", "REQUEST", "REASON"],
      ...status.denials.slice(0, DENIALS_SHOWN).map((denial) => denialRow(denial, now)),
    ]),
    section("Dry runs: what would be decided otherwise", [
      ["SERVICE", "NOW", "WOULD BE", "BY", "TIMES"],
      ...status.dryRuns
        .filter(({ enforced, would }) => enforced !== would)
        .map(({ service, enforced, would, policy, count }) => [
          service,
          enforced,
          would,
          printable(policy ?? "no dry-run rule allows it"),
          String(count),
        ]),
    ]),
    status.denials.length === 0 ? "" : "`everyhop why ID` explains a denial",
  ];
  return sections.filter((text) => text !== "").join("\n\n");
}

function section(title: string, rows: readonly (readonly string[])[]): string {
  return rows.length === 1 ? "" : `${title}\n${indent(table(rows))}`;
}

const indent = (text: string): string => text.replace(/^(?=.)/gm, "  ");

function identityRow({ service, spiffeId, serial, notAfter, overdue }: IdentityStatus, now: number): string[] {
  const left = Date.parse(notAfter) - now;
  const expires = left > 0 ? `in ${rough(left)}${overdue ? ", and not renewed" : ""}` : "expired";
  return [service ?? "-", spiffeId, printable(serial).slice(0, 12), expires];
}

function denialRow(denial: DenialDocument, now: number): string[] {
  const { id, time, source, sourceIp, destination, port, reason } = denial;
  const from = source ?? `nobody proven, from ${sourceIp ?? "an unknown address"}`;
  return [id, ago(time, now), printable(from), `${destination}:${port}`, requestText(denial), printable(reason)];
}

function requestText({ method, path }: DenialDocument): string {
  return method === null ? "TCP connection" : printable(`${method} ${path ?? ""}`);
}

const ago = (time: string, now: number): string => rough(Math.max(0, now - Date.parse(time)));

/** To the two largest units: nobody reads the seconds of an hour. */
function rough(ms: number): string {
  const step = ms >= 3_600_000 ? 60_000 : 1_000;
  return ms >= 1_000 ? formatDuration(Math.floor(ms / step) * step) : formatDuration(ms);
}

/** Who was denied what, by which rule, and what would have been allowed. */
export function whyText(denial: WhyDocument): string {
  const { id, time, source, sourceIp, destination, port, host, reason, policy, rule, snapshotVersion } = denial;
  const lines: [string, string][] = [
    ["denial", id],
    ["time", time],
    ["who", source ?? "nobody: no identity was proven"],
    ["from", sourceIp ?? "unknown"],
    ["what", requestText(denial)],
    ["to", `${destination}, port ${port}${host === null ? "" : `, host ${host}`}`],
    ["reason", REASONS[reason] === undefined ? reason : `${REASONS[reason]} (${reason})`],
    ["rule", ruleText(policy, rule)],
    ...(denial.ruleText === null ? [] : [["says", denial.ruleText] as [string, string]]),
    ["snapshot", `version ${snapshotVersion}`],
  ];
  const text = lines.map(([name, value]) => `${name.padEnd(9)} ${printable(value)}`).join("\n");
  return [text, nearestMissText(denial), allowedText(denial)].join("\n\n");
}

const REASONS: Readonly<Record<string, string>> = {
  "no-allow-matched": "policies allow some requests to this service, and none of their rules allows this one",
  "deny-rule": "a rule denies it",
  "custom-denied": "the external authorisation service denies it",
  "plaintext-refused": "this service takes mutual TLS only, and the connection was plaintext",
  "bad-token": "its token is not valid",
  "bad-request": "the request is ambiguous or malformed",
  killed: "the identity is cut off: `everyhop restore` undoes it",
};

function ruleText(policy: string | null, rule: number | null): string {
  if (policy === null) {
    return "none decided";
  }
  return rule === null ? policy : `${policy}, rule ${rule}`;
}

function nearestMissText({ changes }: DenialDocument): string {
  if (changes.length === 0) {
    return "Nearest: no change of a policy would have allowed it.";
  }
  const all = changes.map(({ policy, rule, would, patch }) => {
    const operations = patch.map((operation) => `  ${printable(JSON.stringify(operation))}`);
    return [`${printable(ruleText(policy, rule))} would ${printable(would)}`, ...operations].join("\n");
  });
  return changes.length === 1 ? `Nearest: ${all[0]}` : `Nearest, all of these together:\n${all.join("\n")}`;
}

function allowedText({ allowed, destination, version }: WhyDocument): string {
  return allowed.length === 0
    ? `At ${destination} no policy limits what is allowed (version ${version}).`
    : `Allowed at ${destination} (version ${version}):\n${allowed.map((rule) => `  ${printable(rule)}`).join("\n")}`;
}

/** `undone`: of a restore. */
export function killText(document: KillDocument, undone: boolean): string {
  const { spiffeId, confirmed, total, unconfirmed, connectionsClosed, ms } = document;
  const closed = undone ? "" : `; ${connectionsClosed} connection${connectionsClosed === 1 ? "" : "s"} closed`;
  const head = `${spiffeId} is ${undone ? "restored" : "cut off"}: confirmed by ${confirmed} of ${total} sidecars in ${ms} ms${closed}`;
  return unconfirmed.length === 0
    ? head
    : `${head}\nnot confirmed by ${unconfirmed.join(", ")}: not connected, or without an answer; ${
        undone ? "they go on refusing it" : "their own snapshot is in force"
      } until they are`;
}
