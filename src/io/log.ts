/** Structured logs: one JSON object a line on standard error. Identities in it are those that mutual TLS proved. */
export type Level = "debug" | "info" | "warn" | "error";

const ORDER: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export type Fields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  with(fields: Fields): Log;
}

/** A log whose every line has `component`; `write` takes the finished line (default: standard error). */
export function makeLog(
  component: string,
  options: { level?: Level; fields?: Fields; write?: (line: string) => void } = {},
): Log {
  const least = ORDER[options.level ?? "info"];
  const write = options.write ?? ((line: string) => process.stderr.write(line));
  const at =
    (level: Level) =>
    (message: string, fields?: Fields): void => {
      if (ORDER[level] >= least) {
        const line = { time: new Date().toISOString(), level, component, message, ...options.fields, ...fields };
        write(`${JSON.stringify(line, plainError)}\n`);
      }
    };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => makeLog(component, { ...options, fields: { ...options.fields, ...fields } }),
  };
}

function plainError(_key: string, value: unknown): unknown {
  return value instanceof Error ? value.message : typeof value === "bigint" ? value.toString() : value;
}

/** A log that keeps nothing, for tests. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {}, with: () => silentLog };
