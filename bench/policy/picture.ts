/** Lines over logarithmic axes, as an SVG of its own: no script, no font, readable on dark pages too. */
export interface Line {
  readonly name: string;
  /** Rules and nanoseconds; a nanosecond that is NaN is left out. */
  readonly points: readonly (readonly [number, number])[];
}

const SIZE = { width: 760, height: 440 };
const PLOT = { left: 70, right: 590, top: 46, bottom: 390 };
const COLOURS = ["#0b6e4f", "#1f5fbf", "#b3541e", "#8a2a8a", "#555555"];

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const duration = (ns: number): string => (ns < 1e3 ? `${ns} ns` : ns < 1e6 ? `${ns / 1e3} µs` : `${ns / 1e6} ms`);

/** Where a value lies between two powers of ten, as pixels. */
const scale =
  (low: number, high: number, from: number, to: number) =>
  (value: number): number =>
    Math.round((from + ((Math.log10(value) - low) / (high - low)) * (to - from)) * 10) / 10;

const powers = (low: number, high: number): number[] =>
  Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));

function label(x: number, y: number, said: string, anchor = "middle", more = ""): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}"${more}>${escaped(said)}</text>`;
}

export function picture(lines: readonly Line[]): string {
  const seen = lines.flatMap(({ points }) => points.filter(([, ns]) => !Number.isNaN(ns)));
  const [counts, costs] = [seen.map(([count]) => count), seen.map(([, ns]) => ns)];
  const [first, last] = [Math.floor(Math.log10(Math.min(...counts))), Math.ceil(Math.log10(Math.max(...counts)))];
  const [low, high] = [Math.floor(Math.log10(Math.min(...costs))), Math.ceil(Math.log10(Math.max(...costs)))];
  const x = scale(first, Math.max(last, first + 1), PLOT.left, PLOT.right);
  const y = scale(low, Math.max(high, low + 1), PLOT.bottom, PLOT.top);
  const grid = [
    ...powers(first, last).map(
      (count) =>
        `<path d="M${x(count)} ${PLOT.top}V${PLOT.bottom}"/>${label(x(count), PLOT.bottom + 18, count.toLocaleString("en"))}`,
    ),
    ...powers(low, high).map(
      (ns) => `<path d="M${PLOT.left} ${y(ns)}H${PLOT.right}"/>${label(PLOT.left - 8, y(ns) + 4, duration(ns), "end")}`,
    ),
  ];
  const drawn = lines.map(({ name, points }, index) => {
    const places = points.filter(([, ns]) => !Number.isNaN(ns)).map(([count, ns]) => [x(count), y(ns)] as const);
    const colour = COLOURS[index % COLOURS.length];
    const [endX = PLOT.right, endY = PLOT.bottom] = places.at(-1) ?? [];
    const dots = places.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3.5" stroke="none"/>`).join("");
    const end = label(endX + 10, endY + 4, name, "start", ' stroke="none" font-weight="600"');
    return `<g stroke="${colour}" fill="${colour}"><polyline fill="none" stroke-width="2.5" points="${places.join(" ")}"/>${dots}${end}</g>`;
  });
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SIZE.width} ${SIZE.height}" font-family="sans-serif" font-size="12" role="img">`,
    "<title>Processor time of one decision against the number of rules</title>",
    '<rect width="100%" height="100%" fill="#ffffff"/>',
    label(PLOT.left, 26, "Processor time of one decision", "start", ' font-size="15" font-weight="600"'),
    `<g stroke="#dddddd" fill="none">${grid.join("\n").replaceAll("<text ", '<text stroke="none" fill="#444444" ')}</g>`,
    label((PLOT.left + PLOT.right) / 2, PLOT.bottom + 40, "rules", "middle", ' fill="#444444"'),
    ...drawn,
    "</svg>",
  ].join("\n")}\n`;
}
