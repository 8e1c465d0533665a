/** The log of one process: bounded on disk, with its last lines at hand for error messages. */
import { closeSync, mkdirSync, openSync, renameSync, statSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { StringDecoder } from "node:string_decoder";

/** Beyond this a log becomes `<file>.1` (the one before it is dropped) and starts anew. */
const MAX_BYTES = 8 * 1024 * 1024;
const KEPT_LINES = 20;
const MAX_LINE = 64 * 1024;

export interface LogFile {
  readonly file: string;
  write(chunk: Buffer | string): void;
  /** The last lines written, oldest first. */
  tail(): readonly string[];
  close(): void;
}

/**
 * Opens (appends to) a log. A disk that is full loses lines, never the mesh. Writes are synchronous: what a process said
 * last is on disk when it is gone.
 */
export function openLogFile(file: string, maxBytes = MAX_BYTES): LogFile {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  let fd: number | null = openSync(file, "a", 0o600);
  let size = statSync(file).size;
  const lines: string[] = [];
  const keep = lineReader((line) => {
    lines.push(line);
    if (lines.length > KEPT_LINES) {
      lines.shift();
    }
  });
  return {
    file,
    write(chunk) {
      const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
      keep(bytes);
      if (fd === null) {
        return;
      }
      try {
        if (size + bytes.length > maxBytes && size > 0) {
          closeSync(fd);
          fd = null;
          renameSync(file, `${file}.1`);
          fd = openSync(file, "a", 0o600);
          size = 0;
        }
        size += writeSync(fd, bytes);
      } catch {
        // Nothing to tell it to: the log is what failed.
      }
    },
    tail: () => [...lines],
    close() {
      if (fd !== null) {
        closeSync(fd);
        fd = null;
      }
    },
  };
}

/** Splits chunks into lines; a line that is too long is cut. */
export function lineReader(onLine: (line: string) => void): (chunk: Buffer) => void {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  return (chunk) => {
    const parts = (rest + decoder.write(chunk)).split("\n");
    rest = (parts.pop() ?? "").slice(0, MAX_LINE);
    for (const line of parts) {
      if (line.trim() !== "") {
        onLine(line.replace(/\r$/, ""));
      }
    }
  };
}
