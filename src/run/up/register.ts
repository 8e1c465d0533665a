/** What `up` asks of its server over the admin socket: a join token for the agent, entries for services and sidecars. */
import { credentials } from "@grpc/grpc-js";
import { EveryhopError } from "../../core/base/errors.ts";
import {
  makeSpiffeId,
  parseSpiffeId,
  pathOf,
  type SpiffeId,
  type TrustDomain,
  trustDomainOf,
} from "../../core/spiffe/id.ts";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { makeClient } from "../../io/rpc/adapter.ts";

const TOKEN_TTL_SECONDS = 600;
const ALREADY_EXISTS = 6;
/** Marks entries that `up` made: those of an earlier run name processes that are gone. */
export const UP_HINT = "everyhop-up";

export interface EntryRequest {
  readonly spiffeId: SpiffeId;
  readonly selectors: readonly string[];
}

export interface Registrar {
  /** A one-time join token, and the identity its agent will have. */
  joinToken(): Promise<{ readonly token: string; readonly agentId: SpiffeId }>;
  /** Removes the agent of an earlier run; nothing where there is none. */
  forget(agentId: string): Promise<void>;
  /** Makes the entries, under the agent. */
  add(agentId: SpiffeId, entries: readonly EntryRequest[]): Promise<void>;
  /** The same, and deletes those of earlier runs. */
  register(agentId: SpiffeId, entries: readonly EntryRequest[]): Promise<void>;
  close(): void;
}

export function connectRegistrar(adminSocket: string, domain: TrustDomain): Registrar {
  const target = `unix:${adminSocket}`;
  const agents = makeClient(Agent, target, credentials.createInsecure());
  const entries = makeClient(Entry, target, credentials.createInsecure(), { share: agents });
  const add = async (agentId: SpiffeId, wanted: readonly EntryRequest[]): Promise<void> => {
    const { results } = await entries.batchCreateEntry({
      entries: wanted.map(({ spiffeId, selectors }) => ({
        spiffeId: wireId(spiffeId),
        parentId: wireId(agentId),
        selectors: selectors.map(wireSelector),
        hint: UP_HINT,
      })),
    });
    for (const [index, { status }] of results.entries()) {
      const code = status?.code ?? 0;
      if (code !== 0 && code !== ALREADY_EXISTS) {
        const id = wanted[index]?.spiffeId;
        throw new EveryhopError("invalid-argument", `the server refused the entry of \`${id}\`: ${status?.message}`, {
          hint: "check the service's `selectors`",
        });
      }
    }
  };
  return {
    async joinToken() {
      const { value: token } = await agents.createJoinToken({ ttl: TOKEN_TTL_SECONDS });
      // SPEC: the name SPIRE gives to an agent that joined with a token.
      return { token, agentId: makeSpiffeId(domain, `/spire/agent/join_token/${token}`) };
    },
    async forget(agentId) {
      if (agentId !== "") {
        await agents.deleteAgent({ id: wireId(parseSpiffeId(agentId)) }).catch(() => {});
      }
    },
    add,
    async register(agentId, wanted) {
      const old = await entries.listEntries({ pageSize: 1_000 });
      const stale = old.entries.filter(({ hint }) => hint === UP_HINT).map(({ id }) => id);
      if (stale.length > 0) {
        await entries.batchDeleteEntry({ ids: stale });
      }
      await add(agentId, wanted);
    },
    close: () => agents.close(),
  };
}

const wireId = (id: SpiffeId) => ({ trustDomain: trustDomainOf(id), path: pathOf(id) });

function wireSelector(selector: string): { type: string; value: string } {
  const colon = selector.indexOf(":");
  return { type: selector.slice(0, colon), value: selector.slice(colon + 1) };
}
