import { createHash } from "node:crypto";
import { parseCertificate } from "../../core/x509/certificate.ts";
import type { IssuanceRecord, IssuanceStore } from "../../io/store/store.ts";
import { JOURNAL_KEPT_MS } from "./registry.ts";
import type { SignedLog } from "./signer-log.ts";

/** A certificate that is somewhere in use. */
export interface SeenCertificate {
  readonly spiffeId: string;
  /** Lower-case hex. */
  readonly serial: string;
  /** Who told of it. */
  readonly seenBy: string;
}

/** What `audit certificates --json` prints. */
export interface CertificateAudit {
  /** Certificates that were signed and handed out. */
  readonly issued: number;
  /** Serial numbers that stand in more than one certificate. */
  readonly duplicates: number;
  /** In use, or in the signer's log, and unknown to the journal: made around this server. `unknown` names them. */
  readonly unjournaled: number;
  /** Handed out, and not in the log of the signer that has the key: the log was cut, or the key was used elsewhere. */
  readonly unlogged: readonly string[];
  /** Intended, and never handed out: a crash, or an identity that was cut off meanwhile. */
  readonly unfinished: number;
  /** JWT-SVIDs that were handed out. */
  readonly tokens: number;
  /** Records whose certificate is not what was intended, or whose digest is not the one in the signer's log. */
  readonly mismatches: readonly string[];
  readonly unknown: readonly SeenCertificate[];
  /** The newest, oldest first. */
  readonly certificates: readonly CertificateDocument[];
}

export interface CertificateDocument {
  readonly serial: string;
  readonly kind: "x509-svid" | "x509-ca";
  readonly spiffeId: string;
  /** The registration entry, or what else granted it. */
  readonly entryId: string;
  readonly authorityId: string;
  readonly notBefore: string;
  readonly notAfter: string;
  readonly intendedAt: string;
  /** Null: intended, and never handed out. */
  readonly sha256: string | null;
}

const PAGE = 2_000;
/** Certificates in one answer; the counts are over all. */
const MAX_LISTED = 10_000;

export interface AuditSources {
  readonly store: IssuanceStore;
  /** Certificates in use. */
  readonly seen: readonly SeenCertificate[];
  /** RACE: read before the journal, which has each of its lines first. */
  readonly log: SignedLog;
  /** When the log was read. */
  readonly now: number;
}

/** Reads the whole journal, every certificate in it again, and compares with the signer's log and with what is in use. */
export async function auditCertificates({ store, seen, log, now }: AuditSources): Promise<CertificateAudit> {
  const counts = { issued: 0, duplicates: 0, unfinished: 0, tokens: 0 };
  const serials = new Set<string>();
  const mismatches: string[] = [];
  const unlogged: string[] = [];
  const certificates: CertificateDocument[] = [];
  const unjournaled = new Map(log.signed);
  for await (const record of journal(store)) {
    const { kind, issued, serial } = record;
    const logged = log.signed.get(serial);
    unjournaled.delete(serial);
    let differs = logged !== undefined && logged.digest !== record.digest;
    if (issued === null) {
      counts.unfinished++;
    } else if (kind === "jwt-svid") {
      counts.tokens++;
    } else {
      counts.issued++;
      const own = serialOf(issued);
      counts.duplicates += serials.has(own) ? 1 : 0;
      serials.add(own);
      differs ||= mismatch(record, issued);
    }
    if (differs) {
      mismatches.push(serial);
    }
    if (issued !== null && logged === undefined && belongsInto(log, record, now)) {
      unlogged.push(serial);
    }
    if (kind !== "jwt-svid") {
      certificates.push(documentOf(record, kind));
      if (certificates.length > MAX_LISTED) {
        certificates.shift();
      }
    }
  }
  const unknown = [...seen.filter(({ serial }) => !serials.has(plain(serial))), ...onlyLogged(unjournaled, now)];
  return { ...counts, unjournaled: unknown.length, unlogged, mismatches, unknown, certificates };
}

/** Whether this very signer's log should have it: another replica's has its own, and earlier versions had none. */
function belongsInto({ keys, since }: SignedLog, { authorityId, intendedAtMs }: IssuanceRecord, now: number): boolean {
  return keys.has(authorityId) && intendedAtMs >= since && intendedAtMs < now;
}

function onlyLogged(left: SignedLog["signed"], now: number): SeenCertificate[] {
  return [...left]
    .filter(([, { notAfterMs }]) => notAfterMs >= now - JOURNAL_KEPT_MS)
    .map(([serial, { spiffeId }]) => ({ spiffeId, serial, seenBy: "the signer's log" }));
}

async function* journal(store: IssuanceStore): AsyncGenerator<IssuanceRecord> {
  let after: number | null = 0;
  while (after !== null) {
    const page: { records: readonly IssuanceRecord[]; next: number | null } = await store.list({ after, limit: PAGE });
    yield* page.records;
    after = page.next;
  }
}

const plain = (serial: string): string => serial.toLowerCase().replaceAll(":", "").replace(/^0+/, "");

function serialOf(der: Uint8Array): string {
  return plain(parseCertificate(der).serial);
}

function mismatch(record: IssuanceRecord, der: Uint8Array): boolean {
  const { serial, tbs, names } = parseCertificate(der);
  const digest = createHash("sha256").update(tbs).digest("hex");
  return plain(serial) !== plain(record.serial) || digest !== record.digest || names?.uris[0] !== record.spiffeId;
}

function documentOf(record: IssuanceRecord, kind: CertificateDocument["kind"]): CertificateDocument {
  const time = (ms: number): string => new Date(ms).toISOString();
  return {
    serial: record.serial,
    kind,
    spiffeId: record.spiffeId,
    entryId: record.entryId,
    authorityId: record.authorityId,
    notBefore: time(record.notBeforeMs),
    notAfter: time(record.notAfterMs),
    intendedAt: time(record.intendedAtMs),
    sha256: record.issued === null ? null : createHash("sha256").update(record.issued).digest("hex"),
  };
}
