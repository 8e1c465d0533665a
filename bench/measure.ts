/** What benchmarks share: medians, ratios, the CPU time of a process, tables. */
import { readFileSync } from "node:fs";

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** `a` beside `b`: `2.1x`. */
export function ratio(a: number, b: number): string {
  return b === 0 ? "-" : `${(a / b).toFixed(a / b < 10 ? 1 : 0)}x`;
}

/** Clock ticks of /proc/PID/stat; 100 on every Linux that Node runs on. Source: proc(5), sysconf(_SC_CLK_TCK). */
const TICK_MS = 10;

/** CPU time that a process has used, with the children it waited for, in milliseconds. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0) * TICK_MS;
}

/** Columns padded to their widest cell: text to the left, numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const cells = [head, ...rows.map((row) => row.map(String))];
  const widths = head.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  return cells
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
