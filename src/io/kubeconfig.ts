/** A kubeconfig file: which cluster, and by which credentials. Programs that make credentials (`exec`) are not run. */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { configError, EveryhopError } from "../core/base/errors.ts";
import { parseYaml } from "../core/base/yaml.ts";
import type { KubeConnect } from "./kube.ts";

type Mapping = Readonly<Record<string, unknown>>;

/** Reads the file, and the files it names, at each call. Errors: `file-missing`, `config-invalid`. */
export function kubeconfigAccess(file: string): KubeConnect {
  return async () => {
    const document = await readDocument(file);
    const context = named(document, "contexts", document["current-context"], "context", file);
    const cluster = named(document, "clusters", context.cluster, "cluster", file);
    const user = named(document, "users", context.user, "user", file);
    const url = serverUrl(cluster, file);
    const read = (of: Mapping, key: string) => dataOrFile(of, key, dirname(file));
    const ca = await read(cluster, "certificate-authority");
    if (ca === null) {
      throw new EveryhopError("config-invalid", `\`${file}\`: the cluster has no \`certificate-authority\``);
    }
    const [cert, key] = [await read(user, "client-certificate"), await read(user, "client-key")];
    const token = typeof user.token === "string" ? user.token : await read(user, "tokenFile");
    if (token === null && (cert === null || key === null)) {
      throw new EveryhopError("config-invalid", `\`${file}\`: the user has neither a token nor a client certificate`, {
        hint: "make a token for a service account and give it as `token` or `tokenFile`; `exec` is not run",
      });
    }
    const serverName = cluster["tls-server-name"];
    return {
      endpoint: {
        kind: "https",
        host: url.hostname.replace(/^\[|\]$/g, ""),
        port: Number(url.port || 443),
        ca,
        ...(typeof serverName === "string" ? { serverName } : {}),
        ...(cert !== null && key !== null ? { client: { cert, key } } : {}),
      },
      headers: token === null ? {} : { authorization: `Bearer ${token.trim()}` },
    };
  };
}

function serverUrl(cluster: Mapping, file: string): URL {
  const url = URL.parse(String(cluster.server ?? ""));
  if (url === null || url.protocol !== "https:") {
    throw new EveryhopError("config-invalid", `\`${file}\`: the cluster's \`server\` is no https URL`);
  }
  return url;
}

/** The item of a list that has the name, and in it the mapping that holds what is said. */
function named(document: Mapping, list: string, name: unknown, key: string, file: string): Mapping {
  const items = Array.isArray(document[list]) ? (document[list] as readonly Mapping[]) : [];
  const found = items.find((item) => item?.name === name)?.[key];
  if (typeof found === "object" && found !== null) {
    return found as Mapping;
  }
  throw new EveryhopError("config-invalid", `\`${file}\` has no ${key} named \`${String(name)}\``);
}

async function dataOrFile(of: Mapping, key: string, dir: string): Promise<string | null> {
  const data = of[`${key}-data`];
  if (typeof data === "string") {
    return Buffer.from(data, "base64").toString("utf8");
  }
  const file = of[key];
  return typeof file === "string" ? readText(resolve(dir, file)) : null;
}

async function readDocument(file: string): Promise<Mapping> {
  const { documents, issues } = parseYaml(await readText(file), file);
  const value = documents[0]?.value;
  if (issues.length > 0) {
    throw configError(issues);
  }
  if (typeof value !== "object" || value === null) {
    throw new EveryhopError("config-invalid", `\`${file}\` is no kubeconfig`);
  }
  return value as Mapping;
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, { cause });
  }
}
