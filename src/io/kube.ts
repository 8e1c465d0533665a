/** The Kubernetes API, as a pod reaches it: by its service account. Only what everyhop asks of it. */
import { readFile } from "node:fs/promises";
import { EveryhopError } from "../core/base/errors.ts";
import { type ApiAnswer, type ApiEndpoint, callApi, describeEndpoint, followApi } from "./http-client.ts";

export interface KubeConfig {
  readonly host: string;
  readonly port: number;
  /** Files; read anew for each call, because Kubernetes replaces them. */
  readonly caFile: string;
  readonly tokenFile: string;
  readonly timeoutMs?: number;
}

export const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

const TIMEOUT_MS = 10_000;
const MAX_ANSWER_BYTES = 32 << 20;
const MAX_EVENT_BYTES = 4 << 20;

/** What every pod finds in its environment and under `SERVICE_ACCOUNT`; null outside of a pod. */
export function inClusterConfig(env: Readonly<Record<string, string | undefined>>): KubeConfig | null {
  const host = env["KUBERNETES_SERVICE_HOST"];
  const port = Number(env["KUBERNETES_SERVICE_PORT_HTTPS"] ?? env["KUBERNETES_SERVICE_PORT"] ?? 443);
  return host === undefined || host === "" || !Number.isInteger(port)
    ? null
    : { host, port, caFile: `${SERVICE_ACCOUNT}/ca.crt`, tokenFile: `${SERVICE_ACCOUNT}/token` };
}

export interface KubeEvent {
  readonly type: string;
  readonly object: unknown;
}

export interface WatchListener {
  readonly open: () => void;
  readonly event: (event: KubeEvent) => void;
}

export interface KubeClient {
  /** The document at a path, or null where there is none. Errors: `permission-denied`, `unavailable`. */
  get(path: string, accept?: string): Promise<unknown>;
  /** The answer to a posted document (a review). Errors as `get`. */
  post(path: string, body: unknown): Promise<unknown>;
  /**
   * Follows the changes at a path with `watch=true` in its query, until `signal` or the server ends it. What changed before `open` is
   * not told. Errors as `get`.
   */
  watch(path: string, on: WatchListener, signal: AbortSignal): Promise<void>;
}

/** Where the API is and what a call carries, made anew for each call: credentials are replaced on disk. */
export type KubeConnect = () => Promise<{
  readonly endpoint: ApiEndpoint;
  readonly headers: Readonly<Record<string, string>>;
}>;

export function kubeClient({ host, port, caFile, tokenFile, timeoutMs }: KubeConfig): KubeClient {
  return kubeClientOf(async () => {
    const [ca, token] = await Promise.all([readText(caFile), readText(tokenFile)]);
    return { endpoint: { kind: "https", host, port, ca }, headers: { authorization: `Bearer ${token.trim()}` } };
  }, timeoutMs);
}

export function kubeClientOf(access: KubeConnect, timeoutMs = TIMEOUT_MS): KubeClient {
  const connect = async (accept?: string): Promise<Awaited<ReturnType<KubeConnect>>> => {
    const { endpoint, headers } = await access();
    return { endpoint, headers: { ...headers, ...(accept === undefined ? {} : { accept }) } };
  };
  return {
    async get(path, accept) {
      const { endpoint, headers } = await connect(accept);
      return settle(endpoint, path, await callApi(endpoint, { path, headers, timeoutMs, maxBytes: MAX_ANSWER_BYTES }));
    },
    async post(path, body) {
      const { endpoint, headers } = await connect();
      const request = { method: "POST", path, headers, body, timeoutMs, maxBytes: MAX_ANSWER_BYTES } as const;
      return settle(endpoint, path, await callApi(endpoint, request));
    },
    async watch(path, on, signal) {
      const { endpoint, headers } = await connect();
      const request = { path, headers, timeoutMs, maxBytes: MAX_EVENT_BYTES };
      const document = (document: unknown) => {
        const { type, object } = (document ?? {}) as Partial<KubeEvent>;
        if (typeof type === "string") {
          on.event({ type, object });
        }
      };
      const status = await followApi(endpoint, request, { open: on.open, document }, signal);
      if (status !== 0) {
        settle(endpoint, path, { status, body: null });
      }
    },
  };
}

/** The body of a good answer, null for "there is none"; anything else is thrown. */
function settle(endpoint: ApiEndpoint, path: string, { status, body }: ApiAnswer): unknown {
  if (status === 404) {
    return null;
  }
  if (status >= 200 && status < 300 && body !== undefined) {
    return body;
  }
  const said = (body as { message?: unknown } | null | undefined)?.message;
  const message = typeof said === "string" ? said.slice(0, 500) : `status ${status}`;
  const where = `\`${describeEndpoint(endpoint)}${path.split("?", 1)[0]}\``;
  if (status === 401 || status === 403) {
    throw new EveryhopError("permission-denied", `Kubernetes refuses ${where}: ${message}`, {
      hint: "give the service account the right to do this (docs/operate.md has the ClusterRole)",
    });
  }
  throw new EveryhopError("unavailable", `Kubernetes answers ${where} with ${message}`);
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new EveryhopError("unavailable", `cannot read \`${file}\`: ${(error as Error).message}`, {
      hint: "in a pod the service account's files are there; elsewhere name them in the configuration",
      cause: error,
    });
  }
}
