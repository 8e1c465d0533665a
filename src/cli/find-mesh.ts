import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Command, Option } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import type { MeshDocument } from "../run/up/document.ts";

/** The options that `addMeshOptions` gives a command. */
export interface MeshOptions {
  readonly dir?: string;
  readonly adminSocket?: string;
  /** `host:port`, reached over mutual TLS. */
  readonly server?: string;
  readonly svidDir?: string;
}

export const MESH_FILE = "mesh.json";
export const STATE_DIR = ".everyhop";

/** Adds the options by which every command about a running mesh finds it, and says who asks. */
export function addMeshOptions(command: Command): Command {
  return command
    .addOption(new Option("--dir <dir>", "folder of the mesh (default: the current folder)"))
    .addOption(new Option("--admin-socket <path>", "the server's admin socket, instead of --dir"))
    .addOption(new Option("--server <host:port>", "the server over the network, as this process's own identity"))
    .addOption(
      new Option("--svid-dir <dir>", "with --server: the identity in DIR, as `svid fetch --out-dir` writes it"),
    );
}

/**
 * The running mesh of a folder: `DIR/.everyhop/mesh.json`, or `DIR/mesh.json` where DIR is the state folder itself.
 * Errors: `unavailable` where no mesh runs there, `storage-failed` where the file is not readable as such.
 */
export function findMesh(options: MeshOptions): MeshDocument {
  const mesh = meshIfAny(options);
  if (mesh !== null) {
    return mesh;
  }
  throw new EveryhopError("unavailable", `no mesh runs in \`${resolve(options.dir ?? ".")}\``, {
    hint: "start one with `everyhop up`, name its folder with `--dir DIR`, or its server with `--admin-socket PATH`",
  });
}

/** As `findMesh`, but null where no mesh runs there. */
export function meshIfAny(options: MeshOptions): MeshDocument | null {
  const dir = resolve(options.dir ?? ".");
  for (const file of [join(dir, STATE_DIR, MESH_FILE), join(dir, MESH_FILE)]) {
    const text = readIfThere(file);
    if (text !== null) {
      return parseMesh(file, text);
    }
  }
  return null;
}

/** The gRPC target of the admin socket. */
export function adminTarget(options: MeshOptions): string {
  const path = options.adminSocket ?? findMesh(options).adminSocket;
  return `unix:${resolve(path.replace(/^unix:(\/\/)?/, ""))}`;
}

function readIfThere(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") {
      return null;
    }
    throw new EveryhopError("storage-failed", `cannot read \`${file}\`: ${message}`, {
      hint: "run the command as the user who started the mesh",
      cause: error,
    });
  }
}

function parseMesh(file: string, text: string): MeshDocument {
  try {
    const document = JSON.parse(text) as MeshDocument;
    if (typeof document.adminSocket === "string") {
      return document;
    }
  } catch {
    // Said below: whatever it is, it is not what `up` writes.
  }
  throw new EveryhopError("storage-failed", `\`${file}\` is not the document of a running mesh`, {
    hint: "end the mesh with `everyhop down` and start it again",
  });
}
