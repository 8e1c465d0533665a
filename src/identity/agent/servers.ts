import { type ServiceError, status as Status } from "@grpc/grpc-js";
import type { NodeApi } from "./node-api.ts";

/** What a server that is gone, hangs, or lost its database answers with: another one may do better. */
const ELSEWHERE = new Set<number>([Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED]);

export interface ServersOptions {
  /** `host:port`, at least one; every one of them is a replica of the same server. */
  readonly servers: readonly string[];
  readonly connect: (server: string) => NodeApi;
  /** Where in the list to begin, so that many agents with one list do not all come to its first. */
  readonly first: number;
  /** Told of the server that is asked from now on, and why not the one before. */
  readonly onChange: (server: string, why: string) => void;
}

/**
 * One node API over several replicas: each call goes to the one that answered last. A call that finds it away fails, and the
 * next goes to the next in the list: whoever calls waits between attempts, and needs to know nothing of this.
 */
export function connectAnyServer({ servers, connect, first, onChange }: ServersOptions): NodeApi {
  let at = first % servers.length;
  const addressOf = (index: number): string => servers[index] ?? "";
  let current = connect(addressOf(at));
  let closed = false;
  /** RACE: many calls fail together when a server goes: the first of them moves on, the others find it done. */
  const failed = (api: NodeApi, error: unknown): void => {
    const { code, message } = error as Partial<ServiceError>;
    if (closed || api !== current || servers.length === 1 || !ELSEWHERE.has(code ?? -1)) {
      return;
    }
    at = (at + 1) % servers.length;
    current = connect(addressOf(at));
    onChange(addressOf(at), message ?? "");
    // Calls that are still open on it end by themselves, each with its own error.
    api.close();
  };
  const call = async <T>(ask: (api: NodeApi) => Promise<T>): Promise<T> => {
    const api = current;
    try {
      return await ask(api);
    } catch (error) {
      failed(api, error);
      throw error;
    }
  };
  return {
    attest: (proof, csr) => call((api) => api.attest(proof, csr)),
    renew: (csr) => call((api) => api.renew(csr)),
    bundle: () => call((api) => api.bundle()),
    federatedBundle: (trustDomain) => call((api) => api.federatedBundle(trustDomain)),
    entries: (known) => call((api) => api.entries(known)),
    signX509: (requests) => call((api) => api.signX509(requests)),
    signJwt: (entryId, audience) => call((api) => api.signJwt(entryId, audience)),
    postStatus: (bundleSequence) => call((api) => api.postStatus(bundleSequence)),
    watch(onRevisions, onEnd) {
      const api = current;
      return api.watch(onRevisions, (error) => {
        failed(api, error);
        onEnd(error);
      });
    },
    close() {
      closed = true;
      current.close();
    },
  };
}
