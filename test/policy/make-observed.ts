/**
 * Reads the tables of behaviours observed on Istio's compiler and a real Envoy into observed.json, the fixture of
 * observed.test.ts. Run: node test/policy/make-observed.ts FILE.md
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Section {
  readonly title: string;
  readonly yaml: string;
  readonly trustDomain?: string;
  readonly pathNormalization?: string;
  readonly rows: readonly Row[];
}

interface Row {
  readonly request: unknown;
  readonly decision: string;
  readonly status: number;
  /** Who answered: rbac, jwt, upstream, mtls (connection refused), http (the request itself was refused), tcp. */
  readonly by: string;
  readonly forwardedAs?: string;
}

const ROW = /^\| `(.*)` \| \*\*(\w+)\*\* (-?\d+) \((\w+)\)(?:, forwarded as `(.*)`)? \|$/;

function readSection(text: string): Section[] {
  const yaml = /```yaml\n([\s\S]*?)```/.exec(text)?.[1];
  const rows = text.split("\n").flatMap((line): Row[] => {
    const [, request, decision, status, by, forwardedAs] = ROW.exec(line) ?? [];
    if (request === undefined || decision === undefined || by === undefined) {
      return [];
    }
    // A pipe inside a table is written `\|`.
    const json: unknown = JSON.parse(request.replaceAll("\\|", "|"));
    return [{ request: json, decision, status: Number(status), by, ...(forwardedAs ? { forwardedAs } : {}) }];
  });
  if (yaml === undefined || rows.length === 0) {
    return [];
  }
  const trustDomain = /Mesh trust domain: `(.*?)`/.exec(text)?.[1];
  const pathNormalization = /Path normalization: `(.*?)`/.exec(text)?.[1];
  return [
    {
      title: text.split("\n")[0] ?? "",
      yaml,
      ...(trustDomain === undefined ? {} : { trustDomain }),
      ...(pathNormalization === undefined ? {} : { pathNormalization }),
      rows,
    },
  ];
}

const [file] = process.argv.slice(2);
const sections = readFileSync(file ?? "", "utf8")
  .split(/^### /m)
  .slice(1)
  .flatMap(readSection);
writeFileSync(join(import.meta.dirname, "observed.json"), `${JSON.stringify(sections, null, 1)}\n`);
console.log(`${sections.length} sections, ${sections.flatMap((section) => section.rows).length} rows`);
