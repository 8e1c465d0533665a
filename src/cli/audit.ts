import { type JsonValue, toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { Admin } from "../gen/everyhop/admin/admin_pb.js";
import type { CertificateAudit } from "../identity/server/audit.ts";
import type { ChangeRecord } from "../identity/server/change-log.ts";
import { count } from "./arguments.ts";
import { askAdmin } from "./ask-admin.ts";
import { askServer } from "./ask-server.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { printable } from "./printable.ts";
import { print, printJson, table } from "./ui.ts";

interface Options extends MeshOptions {
  readonly json?: boolean;
}

export function define(program: Command): void {
  const audit = program.command("audit").description("what was issued, used, and left behind");
  addMeshOptions(audit.command("certificates"))
    .description(
      "every certificate against the journal and the signer's log; exit code 1 where one is not accounted for",
    )
    .option("--json", "as JSON")
    .addHelpText("after", "\nExample:\n  everyhop audit certificates --dir examples/payments")
    .action(auditCertificates);
  addMeshOptions(audit.command("changes"))
    .description(
      "who changed what: every call of an administrator, from a record whose lines are chained by their hashes",
    )
    .option("--limit <n>", "the newest so many", count, 100)
    .option("--json", "as JSON")
    .addHelpText("after", "\nExample:\n  everyhop audit changes --limit 20 --json")
    .action(auditChanges);
}

interface ChangesOptions extends Options {
  readonly limit: number;
}

interface Changes {
  readonly records: number;
  readonly changes: readonly ChangeRecord[];
}

async function auditChanges(options: ChangesOptions): Promise<void> {
  const { limit } = options;
  const found = await askAdmin<Changes>(options, (admin) => admin.auditChanges({ limit }, { deadlineMs: DEADLINE_MS }));
  if (options.json === true) {
    printJson(found);
    return;
  }
  const rows = found.changes.map(({ time, caller, method, code, failed, request }) => [
    time,
    callerText(caller),
    method.replace(/^.*\.(\w+\/)/, "$1"),
    code === null ? "unknown: the server ended" : failed === 0 ? code : `${code}, ${failed} failed`,
    printable(request.length > 80 ? `${request.slice(0, 79)}…` : request),
  ]);
  print(table([["TIME", "WHO", "DID", "OUTCOME", "WHAT"], ...rows]));
  print(`\n${found.records} lines on record, each with the hash of all before it: the chain is whole`);
}

function callerText(caller: ChangeRecord["caller"]): string {
  return caller.kind === "local"
    ? `process ${caller.pid ?? "?"} of user ${caller.uid ?? "?"}`
    : `${caller.spiffeId ?? "nobody proven"} at ${caller.address}`;
}

/** A read of the whole journal. */
const DEADLINE_MS = 120_000;

async function auditCertificates(options: Options): Promise<void> {
  const struct = await askServer(options, Admin, (admin) => admin.auditCertificates({}, { deadlineMs: DEADLINE_MS }));
  const audit = toJson(StructSchema, struct) as JsonValue as unknown as CertificateAudit;
  if (audit.duplicates + audit.unjournaled + audit.mismatches.length + audit.unlogged.length > 0) {
    process.exitCode = 1;
  }
  if (options.json === true) {
    printJson(audit);
    return;
  }
  const rows = audit.certificates
    .slice(-20)
    .map(({ spiffeId, serial, entryId, notAfter, sha256 }) => [
      spiffeId,
      serial.slice(0, 16),
      entryId,
      sha256 === null ? "never handed out" : notAfter,
    ]);
  print(table([["SPIFFE ID", "SERIAL", "GRANTED BY", "UNTIL"], ...rows]));
  print(
    `\n${audit.issued} certificates issued (the newest ${rows.length} are shown), ${audit.tokens} tokens, ` +
      `${audit.duplicates} duplicate serials, ${audit.unjournaled} not in the journal, ` +
      `${audit.unlogged.length} not in the signer's log, ${audit.unfinished} never handed out`,
  );
  for (const { spiffeId, serial, seenBy } of audit.unknown) {
    print(`not in the journal: ${spiffeId}, serial ${serial}, seen by ${seenBy}`);
  }
  for (const serial of audit.unlogged) {
    print(`not in the signer's log: serial ${serial}`);
  }
  for (const serial of audit.mismatches) {
    print(`not what was intended: serial ${serial}`);
  }
}
