/** The kubelet of this node: which pods it runs. */
import { readFile } from "node:fs/promises";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { type ApiEndpoint, callApi, describeEndpoint } from "../../../../io/http-client.ts";
import { type Pod, readPods } from "./pod.ts";

export interface KubeletOptions {
  readonly host: string;
  readonly port: number;
  /** False: the read-only port, plain HTTP and without credentials. */
  readonly secure: boolean;
  /** The name its certificate has, where that is not `host`. */
  readonly serverName: string | null;
  /** Null: its certificate is not looked at. Files are read for each call, because they are replaced. */
  readonly caFile: string | null;
  /** Null: no token is sent. */
  readonly tokenFile: string | null;
  readonly client: { readonly certFile: string; readonly keyFile: string } | null;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 5_000;
/** Some hundreds of pods, each of 10 to 20 KiB. */
const MAX_ANSWER_BYTES = 32 << 20;

/** The pods of this node. Errors: `unavailable`, `permission-denied`. */
export async function kubeletPods(options: KubeletOptions): Promise<Pod[]> {
  const { timeoutMs = TIMEOUT_MS } = options;
  const endpoint = await endpointOf(options);
  const token = options.secure && options.tokenFile !== null ? await readText(options.tokenFile) : null;
  const headers = token === null ? {} : { authorization: `Bearer ${token.trim()}` };
  const { status, body } = await callApi(endpoint, { path: "/pods", headers, timeoutMs, maxBytes: MAX_ANSWER_BYTES });
  if (status === 401 || status === 403) {
    throw new EveryhopError(
      "permission-denied",
      `the kubelet at \`${describeEndpoint(endpoint)}\` refuses: ${status}`,
      {
        hint: "the service account needs `get` on `nodes/proxy` (or `nodes/pods`), and the kubelet --authentication-token-webhook",
      },
    );
  }
  if (status !== 200) {
    throw new EveryhopError(
      "unavailable",
      `the kubelet at \`${describeEndpoint(endpoint)}\` answers with status ${status}`,
    );
  }
  return readPods(body);
}

async function endpointOf(options: KubeletOptions): Promise<ApiEndpoint> {
  const { host, port, secure, serverName, caFile, client } = options;
  if (!secure) {
    return { kind: "http", host, port };
  }
  const [ca, cert, key] = await Promise.all([
    caFile === null ? null : readText(caFile),
    client === null ? null : readText(client.certFile),
    client === null ? null : readText(client.keyFile),
  ]);
  return {
    kind: "https",
    host,
    port,
    ca,
    ...(serverName === null ? {} : { serverName }),
    ...(cert === null || key === null ? {} : { client: { cert, key } }),
  };
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new EveryhopError("unavailable", `cannot read \`${file}\`: ${(error as Error).message}`, { cause: error });
  }
}
