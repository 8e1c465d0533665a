/** What `--isolate` needs of the machine. */
import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { EveryhopError } from "../../../core/base/errors.ts";

const PACKAGES: Readonly<Record<string, string>> = {
  ip: "iproute2",
  nft: "nftables",
  setpriv: "util-linux",
  nsenter: "util-linux",
  mount: "mount",
};
/** Administrators' folders are not in every PATH. */
const FOLDERS = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/** Errors: `not-supported`, `permission-denied`, `file-missing` with what to install. */
export function requireIsolation(): void {
  if (process.platform !== "linux") {
    throw new EveryhopError("not-supported", `\`--isolate\` needs Linux; this is ${process.platform}`, {
      hint: "run it in a Linux virtual machine, or leave `--isolate` out",
    });
  }
  if (process.getuid?.() !== 0) {
    throw new EveryhopError(
      "permission-denied",
      "`--isolate` needs root: it makes network namespaces and users of its own",
      {
        hint: "run it with sudo, or leave `--isolate` out",
      },
    );
  }
  const missing = Object.keys(PACKAGES).filter((tool) => findTool(tool) === null);
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((tool) => PACKAGES[tool] ?? tool))];
    throw new EveryhopError("file-missing", `\`--isolate\` needs ${missing.map((tool) => `\`${tool}\``).join(", ")}`, {
      hint: `install with \`apt-get install ${packages.join(" ")}\`, or leave \`--isolate\` out`,
    });
  }
}

export function findTool(name: string): string | null {
  for (const folder of [...(process.env.PATH ?? "").split(":"), ...FOLDERS]) {
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here.
    }
  }
  return null;
}

const TOOL_TIMEOUT_MS = 20_000;

/** Runs a tool to its end and gives its output. Errors: `failed-precondition` with what it said. */
export function runTool(name: string, args: readonly string[], input = ""): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(findTool(name) ?? name, args, { timeout: TOOL_TIMEOUT_MS }, (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
        return;
      }
      const said = stderr.trim().split("\n").slice(0, 3).join("; ") || error.message;
      reject(
        new EveryhopError("failed-precondition", `\`${name} ${args.join(" ")}\` failed: ${said}`, {
          hint: "the kernel needs network namespaces, veth, bridge and nf_tables; a container needs the right to use them",
          cause: error,
        }),
      );
    });
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
  });
}
