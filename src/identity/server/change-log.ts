/**
 * Who changed what: every change that an administrator asks for, on disk before it is made, and what came of it before the answer. Each
 * line has the hash of all before it, so that nobody can take one out unnoticed.
 */
import { createHash, randomUUID } from "node:crypto";
import { type DescMethod, type Message, toJson } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import type { Clock } from "../../core/base/clock.ts";
import { ChainedLog } from "../../io/chained-log/chained-log.ts";
import type { Caller } from "./callers.ts";

/** A change as `everyhop audit changes` shows it. */
export interface ChangeRecord {
  /** Of the line that says it was asked for. */
  readonly n: number;
  readonly time: string;
  readonly caller: CallerText;
  /** `package.Service/Method`. */
  readonly method: string;
  /** The request as JSON, without secrets; cut where it is long. */
  readonly request: string;
  /** SHA-256 of the whole of it, hex. */
  readonly requestSha256: string;
  /** gRPC status; null where the server ended before it was known. */
  readonly code: string | null;
  /** Items of a batch that failed. */
  readonly failed: number;
}

/** Who called, as far as it was proven: a process of this machine, or an identity and its address. */
export type CallerText =
  | { readonly kind: "local"; readonly pid: number | null; readonly uid: number | null }
  | { readonly kind: "remote"; readonly spiffeId: string | null; readonly address: string };

const FOREVER = Number.POSITIVE_INFINITY;
const MAX_REQUEST = 4_000;
/** What would be a secret in the record, or is only noise in it. */
const LEFT_OUT: ReadonlySet<string> = new Set(["token", "csr", "asn1", "publicKey"]);

export interface AskedChange {
  /** `package.Service/Method`. */
  readonly path: string;
  readonly method: DescMethod;
  readonly request: Message;
  readonly caller: Caller;
}

export interface ChangeLogOptions {
  readonly dir: string;
  readonly clock: Clock;
}

export class ChangeLog {
  readonly #log: ChainedLog;
  readonly #options: ChangeLogOptions;

  private constructor(options: ChangeLogOptions, log: ChainedLog) {
    this.#options = options;
    this.#log = log;
  }

  /** Errors: `storage-failed` where a line does not follow from the one before: then nothing may be changed. */
  static async open(options: ChangeLogOptions): Promise<ChangeLog> {
    return new ChangeLog(options, await ChainedLog.open(logOptions(options, () => {})));
  }

  /**
   * Notes that a change was asked for; call what it returns with its outcome. INVARIANT: resolves once it is on disk, and what
   * cannot be noted is not done. Errors: `storage-failed`.
   */
  async asked({ path, method, request, caller }: AskedChange): Promise<Ended> {
    const text = JSON.stringify(toJson(method.input, request), (name, value) =>
      LEFT_OUT.has(name) ? undefined : value,
    );
    const call = randomUUID();
    await this.#log.append([
      {
        kind: "asked",
        call,
        method: path,
        caller: callerText(caller),
        request: text.slice(0, MAX_REQUEST),
        requestSha256: createHash("sha256").update(text).digest("hex"),
      },
    ]);
    return async (code, failed) => {
      await this.#log.append([{ kind: "ended", call, code: status[code] ?? String(code), failed }]);
    };
  }

  /**
   * The newest `limit` changes, oldest first, read from disk and checked against the chain.
   * Errors: `storage-failed` where the files are not as they were written.
   */
  async changes(limit: number): Promise<{ readonly records: number; readonly changes: readonly ChangeRecord[] }> {
    const newest = new Map<string, ChangeRecord>();
    let records = 0;
    const onLine = (line: string): void => {
      records += 1;
      const entry = JSON.parse(line) as Line;
      if (entry.kind === "asked") {
        const { n, at, call, caller, method, request, requestSha256 } = entry;
        newest.set(call, { n, time: at, caller, method, request, requestSha256, code: null, failed: 0 });
        const [oldest] = newest.keys();
        if (newest.size > limit && oldest !== undefined) {
          newest.delete(oldest);
        }
      } else if (entry.kind === "ended") {
        const asked = newest.get(entry.call);
        if (asked !== undefined) {
          newest.set(entry.call, { ...asked, code: entry.code, failed: entry.failed });
        }
      }
    };
    await ChainedLog.check(logOptions(this.#options, onLine));
    return { records, changes: [...newest.values()] };
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}

export type Ended = (code: number, failed: number) => Promise<void>;

type Line =
  | ({ readonly kind: "asked"; readonly at: string; readonly call: string } & Pick<
      ChangeRecord,
      "n" | "caller" | "method" | "request" | "requestSha256"
    >)
  | { readonly kind: "ended"; readonly call: string; readonly code: string; readonly failed: number }
  | { readonly kind: "segment" | "repaired" };

function logOptions({ dir, clock }: ChangeLogOptions, onLine: (line: string) => void) {
  return { dir, name: "changes", title: "the record of changes", now: () => clock.now(), keepMs: FOREVER, onLine };
}

function callerText(caller: Caller): CallerText {
  return caller.kind === "local"
    ? { kind: "local", pid: caller.process?.pid ?? null, uid: caller.process?.uid ?? null }
    : { kind: "remote", spiffeId: caller.svid?.id ?? null, address: caller.address };
}

/** Items of a batch's answer that were not done. */
export function failedItems(answer: unknown): number {
  const results = (answer as { results?: readonly { status?: { code: number } }[] } | null)?.results;
  return Array.isArray(results)
    ? results.filter(({ status: item }) => item !== undefined && item.code !== status.OK).length
    : 0;
}
