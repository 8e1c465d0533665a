/**
 * SPIRE's server command line as the server's socket sees it, written from the contract: which calls each command makes, with which
 * filters, masks and page sizes. It shares no code with our own commands.
 */
import { generateKeyPairSync, sign } from "node:crypto";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { credentials } from "@grpc/grpc-js";
import { buildCsr } from "../../src/core/x509/csr-build.ts";
import { Health } from "../../src/gen/grpc/health/health_pb.js";
import { Agent } from "../../src/gen/spire/api/server/agent/v1/agent_pb.js";
import {
  Bundle,
  BatchDeleteFederatedBundleRequest_Mode as Mode,
} from "../../src/gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../src/gen/spire/api/server/entry/v1/entry_pb.js";
import { LocalAuthority } from "../../src/gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import { SVID } from "../../src/gen/spire/api/server/svid/v1/svid_pb.js";
import type { Agent as AgentMessage } from "../../src/gen/spire/api/types/agent_pb.js";
import type { Entry as EntryMessage } from "../../src/gen/spire/api/types/entry_pb.js";
import { FederatesWithMatch_MatchBehavior as FederatesMatch } from "../../src/gen/spire/api/types/federateswith_pb.js";
import { SelectorMatch_MatchBehavior as Match } from "../../src/gen/spire/api/types/selector_pb.js";
import { makeClient, type RpcClient } from "../../src/io/rpc/adapter.ts";

export interface EntryFlags {
  readonly entryID?: string;
  readonly spiffeID?: string;
  readonly parentID?: string;
  readonly selector?: readonly string[];
  readonly node?: boolean;
  readonly admin?: boolean;
  readonly downstream?: boolean;
  readonly x509SVIDTTL?: number;
  readonly dns?: readonly string[];
  readonly hint?: string;
  readonly federatesWith?: readonly string[];
}

export interface ShowFlags {
  readonly entryID?: string;
  readonly spiffeID?: string;
  readonly parentID?: string;
  readonly selector?: readonly string[];
  readonly matchSelectorsOn?: "exact" | "any" | "superset" | "subset";
  readonly federatesWith?: readonly string[];
  readonly downstream?: boolean;
  readonly hint?: string;
}

const MATCH = {
  exact: Match.MATCH_EXACT,
  any: Match.MATCH_ANY,
  superset: Match.MATCH_SUPERSET,
  subset: Match.MATCH_SUBSET,
} as const;

const ENTRY_PAGE = 500;
const AGENT_PAGE = 1_000;

export class SpireServerCli {
  readonly #target: string;

  constructor(socketPath: string) {
    this.#target = `unix:${socketPath}`;
  }

  async #ask<M extends GenServiceMethods, T>(
    service: GenService<M>,
    ask: (client: RpcClient<GenService<M>>) => Promise<T>,
  ): Promise<T> {
    const client = makeClient(service, this.#target, credentials.createInsecure());
    try {
      return await ask(client);
    } finally {
      client.close();
    }
  }

  async healthcheck(): Promise<number> {
    return this.#ask(Health, async (health) => (await health.check({ service: "" })).status);
  }

  async tokenGenerate(ttl = 600, spiffeID?: string): Promise<string> {
    const agentId = spiffeID === undefined ? {} : { agentId: idOf(spiffeID) };
    return this.#ask(Agent, async (agents) => (await agents.createJoinToken({ ttl, ...agentId })).value);
  }

  /** One call with all entries, as with `-data FILE`. The statuses in order, with the entries that were made or were there. */
  async entryCreate(...flags: readonly EntryFlags[]) {
    const { results } = await this.#ask(Entry, (api) => api.batchCreateEntry({ entries: flags.map(entryOf) }));
    return results;
  }

  /** The command reads the entry first where it is to keep what was not given. */
  async entryUpdate(flags: EntryFlags & { readonly entryID: string }) {
    return this.#ask(Entry, async (api) => {
      await api.getEntry({ id: flags.entryID });
      const { results } = await api.batchUpdateEntry({ entries: [entryOf(flags)] });
      return results[0];
    });
  }

  async entryShow(flags: ShowFlags = {}): Promise<readonly EntryMessage[]> {
    return this.#ask(Entry, async (api) => {
      if (flags.entryID !== undefined) {
        return [await api.getEntry({ id: flags.entryID })];
      }
      const all: EntryMessage[] = [];
      let pageToken = "";
      do {
        const page = await api.listEntries({ filter: filterOf(flags), pageSize: ENTRY_PAGE, pageToken });
        all.push(...page.entries);
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      return all;
    });
  }

  async entryCount(flags: ShowFlags = {}): Promise<number> {
    return this.#ask(Entry, async (api) => (await api.countEntries({ filter: filterOf(flags) })).count);
  }

  async entryDelete(...ids: readonly string[]) {
    return this.#ask(Entry, async (api) => (await api.batchDeleteEntry({ ids: [...ids] })).results);
  }

  async agentList(filter: { readonly byBanned?: boolean; readonly byAttestationType?: string } = {}) {
    return this.#ask(Agent, async (api) => {
      const all: AgentMessage[] = [];
      let pageToken = "";
      do {
        const page = await api.listAgents({ filter, pageSize: AGENT_PAGE, pageToken });
        all.push(...page.agents);
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      return all;
    });
  }

  async agentCount(): Promise<number> {
    return this.#ask(Agent, async (api) => (await api.countAgents({ filter: {} })).count);
  }

  async agentShow(spiffeID: string): Promise<AgentMessage> {
    return this.#ask(Agent, (api) => api.getAgent({ id: idOf(spiffeID) }));
  }

  async agentBan(spiffeID: string): Promise<void> {
    await this.#ask(Agent, (api) => api.banAgent({ id: idOf(spiffeID) }));
  }

  async agentEvict(spiffeID: string): Promise<void> {
    await this.#ask(Agent, (api) => api.deleteAgent({ id: idOf(spiffeID) }));
  }

  async bundleShow() {
    return this.#ask(Bundle, (api) => api.getBundle({}));
  }

  async bundleSet(trustDomain: string, authorities: readonly Uint8Array[]) {
    const bundle = { trustDomain, x509Authorities: authorities.map((asn1) => ({ asn1 })) };
    return this.#ask(Bundle, async (api) => (await api.batchSetFederatedBundle({ bundle: [bundle] })).results[0]);
  }

  async bundleList() {
    return this.#ask(Bundle, async (api) => (await api.listFederatedBundles({})).bundles);
  }

  async bundleDelete(trustDomain: string, mode: "restrict" | "dissociate" | "delete") {
    const by = { restrict: Mode.RESTRICT, dissociate: Mode.DISSOCIATE, delete: Mode.DELETE }[mode];
    return this.#ask(
      Bundle,
      async (api) => (await api.batchDeleteFederatedBundle({ trustDomains: [trustDomain], mode: by })).results[0],
    );
  }

  async x509Mint(spiffeID: string, ttl = 0, dns: readonly string[] = []) {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const spki = publicKey.export({ format: "der", type: "spki" });
    const template = { spki, algorithm: "ecdsa-sha256", uris: [spiffeID], dnsNames: dns } as const;
    const csr = buildCsr(template, (info) => sign("sha256", info, privateKey));
    const { svid } = await this.#ask(SVID, (api) => api.mintX509SVID({ csr, ttl }));
    return svid;
  }

  async jwtMint(spiffeID: string, audience: readonly string[], ttl = 0) {
    const request = { id: idOf(spiffeID), audience: [...audience], ttl };
    return this.#ask(SVID, async (api) => (await api.mintJWTSVID(request)).svid);
  }

  /** `localauthority x509 …`. */
  readonly x509Authority = {
    show: () => this.#ask(LocalAuthority, (api) => api.getX509AuthorityState({})),
    prepare: () => this.#ask(LocalAuthority, (api) => api.prepareX509Authority({})),
    activate: (authorityId: string) => this.#ask(LocalAuthority, (api) => api.activateX509Authority({ authorityId })),
    taint: (authorityId: string) => this.#ask(LocalAuthority, (api) => api.taintX509Authority({ authorityId })),
    revoke: (authorityId: string) => this.#ask(LocalAuthority, (api) => api.revokeX509Authority({ authorityId })),
  };
}

function idOf(spiffeID: string): { readonly trustDomain: string; readonly path: string } {
  const match = /^spiffe:\/\/([^/]+)(.*)$/.exec(spiffeID);
  return { trustDomain: match?.[1] ?? "", path: match?.[2] ?? "" };
}

function selectorOf(selector: string): { readonly type: string; readonly value: string } {
  const colon = selector.indexOf(":");
  return { type: selector.slice(0, colon), value: selector.slice(colon + 1) };
}

/** The command always sends every field; with `-node` the parent is the server's own ID. */
function entryOf(flags: EntryFlags) {
  const spiffeId = idOf(flags.spiffeID ?? "");
  const server = { trustDomain: spiffeId.trustDomain, path: "/spire/server" };
  return {
    id: flags.entryID ?? "",
    spiffeId,
    parentId: flags.node === true ? server : idOf(flags.parentID ?? ""),
    selectors: (flags.selector ?? []).map(selectorOf),
    x509SvidTtl: flags.x509SVIDTTL ?? 0,
    jwtSvidTtl: 0,
    federatesWith: [...(flags.federatesWith ?? [])],
    admin: flags.admin ?? false,
    downstream: flags.downstream ?? false,
    expiresAt: 0n,
    dnsNames: [...(flags.dns ?? [])],
    storeSvid: false,
    hint: flags.hint ?? "",
  };
}

/** `by_downstream` is always there: false stands for "whether or not". */
function filterOf({ parentID, spiffeID, selector, matchSelectorsOn, federatesWith, downstream, hint }: ShowFlags) {
  return {
    ...(parentID === undefined ? {} : { byParentId: idOf(parentID) }),
    ...(spiffeID === undefined ? {} : { bySpiffeId: idOf(spiffeID) }),
    ...(selector === undefined
      ? {}
      : { bySelectors: { selectors: selector.map(selectorOf), match: MATCH[matchSelectorsOn ?? "superset"] } }),
    ...(federatesWith === undefined
      ? {}
      : { byFederatesWith: { trustDomains: [...federatesWith], match: FederatesMatch.MATCH_SUPERSET } }),
    ...(hint === undefined ? {} : { byHint: hint }),
    byDownstream: downstream ?? false,
  };
}
