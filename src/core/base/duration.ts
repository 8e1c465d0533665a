const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Parses a duration as Go and SPIRE write it (`1h30m`, `90s`, `500ms`) to milliseconds; null where it is none. */
export function parseDurationMs(text: string): number | null {
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) {
    return null;
  }
  let total = 0;
  for (const [, amount, , unit] of text.matchAll(/(\d+(\.\d+)?)(ms|s|m|h)/g)) {
    total += Number(amount) * (UNIT_MS[unit ?? ""] ?? 0);
  }
  return total;
}

/** Writes milliseconds as people read them: `1h30m`, `90s`, `250ms`. */
export function formatDuration(ms: number): string {
  if (ms < 1_000) {
    return `${Math.round(ms)}ms`;
  }
  const seconds = Math.round(ms / 1_000);
  const parts: string[] = [];
  for (const [unit, size] of [
    ["h", 3_600],
    ["m", 60],
    ["s", 1],
  ] as const) {
    const amount = Math.floor((seconds % (size * 60 || 1)) / size);
    const whole = unit === "h" ? Math.floor(seconds / size) : amount;
    if (whole > 0) {
      parts.push(`${whole}${unit}`);
    }
  }
  return parts.join("") || "0s";
}
