/**
 * SPIRE's agent as its server sees it, written from the contract on SPIRE's published protobuf definitions: which calls it makes, in
 * which order, with which masks, what it checks of each answer, and what it does when it is refused. It shares no code with our own agent.
 */
import { generateKeyPairSync, sign, X509Certificate } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";
import { Cell } from "../../src/core/base/cell.ts";
import type { X509Svid } from "../../src/core/spiffe/svid.ts";
import { buildCsr } from "../../src/core/x509/csr-build.ts";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";
import { Agent, type AttestAgentResponse } from "../../src/gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle as BundleApi } from "../../src/gen/spire/api/server/bundle/v1/bundle_pb.js";
import {
  Entry as EntryApi,
  type SyncAuthorizedEntriesResponse,
} from "../../src/gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../src/gen/spire/api/server/svid/v1/svid_pb.js";
import type { Bundle } from "../../src/gen/spire/api/types/bundle_pb.js";
import type { Entry } from "../../src/gen/spire/api/types/entry_pb.js";
import {
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
} from "../../src/gen/spire/api/types/status_pb.js";
import type { X509SVID } from "../../src/gen/spire/api/types/x509svid_pb.js";
import { makeClient, type RpcClient } from "../../src/io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../../src/io/rpc/channel.ts";

/** What a proof sends: the first payload, and an answer to each challenge. */
export interface Proof {
  readonly type: string;
  readonly payload: Uint8Array;
  readonly respond?: (challenge: Uint8Array) => Uint8Array;
}

export interface SpireAgentOptions {
  /** `host:port`. */
  readonly server: string;
  readonly trustDomain: string;
  /** DER, as the bootstrap bundle has them. */
  readonly roots: readonly Uint8Array[];
  readonly now: () => number;
}

interface Held {
  readonly entry: Entry;
  readonly chain: readonly X509Certificate[];
  readonly notAfterMs: number;
}

/** What the agent does after a refusal. SPEC: SPIRE, PermissionDeniedDetails. */
export type Reaction = "re-attest" | "shut down" | "try again";

/** Asked for at each sync; the revision must be among them. */
const SYNC_MASK = {
  spiffeId: true,
  parentId: true,
  selectors: true,
  x509SvidTtl: true,
  federatesWith: true,
  admin: true,
  downstream: true,
  expiresAt: true,
  dnsNames: true,
  revisionNumber: true,
  storeSvid: true,
  hint: true,
  createdAt: true,
  additionalAttributes: true,
};
const CSR_BATCH = 500;

export class SpireAgent {
  readonly #options: SpireAgentOptions;
  readonly entries = new Map<string, Entry>();
  readonly svids = new Map<string, Held>();
  bundle: Bundle | null = null;
  readonly federated = new Map<string, Bundle>();
  #svid: X509Svid | null = null;
  #reattestable = false;
  /** How many SVIDs were asked for so far. */
  signed = 0;

  constructor(options: SpireAgentOptions) {
    this.#options = options;
  }

  get id(): string {
    return this.#svid?.id ?? "";
  }

  get reattestable(): boolean {
    return this.#reattestable;
  }

  get own(): X509Svid {
    if (this.#svid === null) {
      throw new Error("the agent has not attested");
    }
    return this.#svid;
  }

  set own(svid: X509Svid) {
    this.#svid = svid;
  }

  /** Proves the node on a connection without a client certificate, and reads the bundle on the same. */
  async attest({ type, payload, respond }: Proof): Promise<void> {
    const { keyDer, csr } = newKey();
    const credentials = this.#credentials(null);
    const agent = makeClient(Agent, this.#options.server, credentials, OWN_CHANNEL);
    const bundles = makeClient(BundleApi, this.#options.server, credentials, { share: agent });
    try {
      const stream = agent.attestAgent();
      const answers = (stream as AsyncIterable<AttestAgentResponse>)[Symbol.asyncIterator]();
      stream.write({ step: { case: "params", value: { data: { type, payload }, params: { csr } } } });
      for (;;) {
        const { step } = await next(answers);
        if (step.case === "challenge") {
          if (respond === undefined) {
            throw new Error("a challenge nobody answers");
          }
          stream.write({ step: { case: "challengeResponse", value: respond(step.value) } });
        } else if (step.case === "result") {
          stream.end();
          this.#reattestable = step.value.reattestable;
          this.#svid = this.#read(step.value.svid, keyDer);
          break;
        } else {
          throw new Error("an answer that is neither challenge nor result");
        }
      }
      this.#take(await bundles.getBundle({}));
    } finally {
      agent.close();
    }
  }

  /** One tick of five seconds: entries, bundles, what has to be signed, and a status. */
  async tick(): Promise<void> {
    await this.#connected(async (on) => {
      await this.#syncEntries(on(EntryApi));
      const bundles = on(BundleApi);
      this.#take(await bundles.getBundle({}));
      const wanted = new Set([...this.entries.values()].flatMap(({ federatesWith }) => federatesWith));
      for (const trustDomain of wanted) {
        this.federated.set(trustDomain, await bundles.getFederatedBundle({ trustDomain }));
      }
      await this.#sign(on(SVID));
      await on(Agent).postStatus({ currentBundleSerial: this.bundle?.sequenceNumber ?? 0n, agentVersion: "1.15.0" });
    });
  }

  /** As it does at half of its SVID's life, where it cannot attest again. */
  async renew(): Promise<void> {
    await this.#connected(async (on) => {
      const { keyDer, csr } = newKey();
      const { svid } = await on(Agent).renewAgent({ params: { csr } });
      this.#svid = this.#read(svid, keyDer);
    });
  }

  async jwt(entryId: string, audience: readonly string[]): Promise<string> {
    return this.#connected(async (on) => {
      const { svid } = await on(SVID).newJWTSVID({ entryId, audience: [...audience] });
      if (svid === undefined || svid.token === "" || svid.id === undefined) {
        throw new Error("JWT-SVID response missing fields");
      }
      if (svid.issuedAt === 0n || svid.expiresAt === 0n || svid.issuedAt > svid.expiresAt) {
        throw new Error("JWT-SVID issued after it has expired, or without times");
      }
      return svid.token;
    });
  }

  /** What a refused call makes it do. */
  reactTo(error: unknown): Reaction {
    const reason = reasonOf(error as ServiceError);
    if (reason === Reason.AGENT_BANNED) {
      this.#svid = null;
      return "shut down";
    }
    if (reason === null || reason === Reason.UNKNOWN) {
      return "try again";
    }
    if (this.#reattestable) {
      return "re-attest";
    }
    this.#svid = null;
    return "shut down";
  }

  async #connected<T>(work: (on: Connect) => Promise<T>): Promise<T> {
    const credentials = this.#credentials(this.own);
    const first = makeClient(Agent, this.#options.server, credentials, OWN_CHANNEL);
    try {
      return await work((service) => makeClient(service, this.#options.server, credentials, { share: first }));
    } finally {
      first.close();
    }
  }

  /** Few entries come whole; of many come revisions, and those that are new or newer are asked for. */
  async #syncEntries(api: RpcClient<typeof EntryApi>): Promise<void> {
    const stream = api.syncAuthorizedEntries();
    const answers = (stream as AsyncIterable<SyncAuthorizedEntriesResponse>)[Symbol.asyncIterator]();
    stream.write({ outputMask: SYNC_MASK });
    const first = await next(answers);
    const known = new Map(this.entries);
    this.entries.clear();
    if (first.entryRevisions.length === 0) {
      keep(this.entries, first.entries);
    } else {
      let page = first;
      const wanted: string[] = [];
      for (;;) {
        for (const { id, revisionNumber, createdAt } of page.entryRevisions) {
          const have = known.get(id);
          if (have !== undefined && have.revisionNumber === revisionNumber && have.createdAt === createdAt) {
            this.entries.set(id, have);
          } else {
            wanted.push(id);
          }
        }
        if (!page.more) {
          break;
        }
        page = await next(answers);
      }
      const pageSize = first.entryRevisions.length;
      for (let at = 0; at < wanted.length; at += pageSize) {
        stream.write({ ids: wanted.slice(at, at + pageSize) });
        for (let more = true; more; ) {
          const answer = await next(answers);
          keep(this.entries, answer.entries);
          more = answer.more;
        }
      }
    }
    stream.end();
    for (const id of this.svids.keys()) {
      if (!this.entries.has(id)) {
        this.svids.delete(id);
      }
    }
  }

  /** What is missing, changed, past its half-life or under a tainted authority is signed anew. */
  async #sign(api: RpcClient<typeof SVID>): Promise<void> {
    const due = [...this.entries.values()].filter((entry) => this.#isDue(entry));
    for (let at = 0; at < due.length; at += CSR_BATCH) {
      const batch = due.slice(at, at + CSR_BATCH).map((entry) => ({ entry, key: newKey() }));
      const params = batch.map(({ entry, key }) => ({ entryId: entry.id, csr: key.csr }));
      const { results } = await api.batchNewX509SVID({ params });
      if (results.length !== batch.length) {
        throw new Error("not as many results as requests");
      }
      for (const [index, { entry, key }] of batch.entries()) {
        const { status, svid } = results[index] ?? {};
        this.signed += 1;
        if (status?.code === 0) {
          const read = this.#read(svid, key.keyDer);
          const chain = read.chain.map((der) => new X509Certificate(der));
          this.svids.set(entry.id, { entry, chain, notAfterMs: read.notAfter });
        }
      }
    }
  }

  #isDue(entry: Entry): boolean {
    const held = this.svids.get(entry.id);
    if (held === undefined || held.entry.revisionNumber !== entry.revisionNumber) {
      return true;
    }
    const [leaf] = held.chain;
    const lifeMs = held.notAfterMs - (leaf?.validFromDate.getTime() ?? 0);
    return held.notAfterMs - this.#options.now() <= lifeMs / 2 || this.#isTainted(held.chain);
  }

  #isTainted(chain: readonly X509Certificate[]): boolean {
    const last = chain.at(-1);
    const tainted = this.bundle?.x509Authorities.filter((authority) => authority.tainted) ?? [];
    return tainted.some(({ asn1 }) => last?.verify(new X509Certificate(asn1).publicKey) === true);
  }

  #take(bundle: Bundle): void {
    if (bundle.trustDomain !== this.#options.trustDomain) {
      throw new Error(`the bundle of another trust domain: ${bundle.trustDomain}`);
    }
    for (const { asn1 } of bundle.x509Authorities) {
      if (!new X509Certificate(asn1).ca) {
        throw new Error("an authority that is none");
      }
    }
    this.bundle = bundle;
  }

  /** Checks what the agent checks: an id, a chain, and that the chain leads to the bundle. */
  #read(svid: X509SVID | undefined, keyDer: Uint8Array): X509Svid {
    const chain = svid?.certChain ?? [];
    if (svid?.id === undefined || chain.length === 0) {
      throw new Error("an SVID without an id or a chain");
    }
    const certificates = chain.map((der) => new X509Certificate(der));
    const [leaf] = certificates as [X509Certificate];
    const id = `spiffe://${svid.id.trustDomain}${svid.id.path}`;
    if (leaf.subjectAltName?.includes(`URI:${id}`) !== true) {
      throw new Error(`the certificate is not that of ${id}`);
    }
    if (Number(svid.expiresAt) !== Math.floor(leaf.validToDate.getTime() / 1_000)) {
      throw new Error("expires_at is not the certificate's");
    }
    const roots = (this.bundle?.x509Authorities.map(({ asn1 }) => asn1) ?? this.#options.roots).map(
      (der) => new X509Certificate(der),
    );
    const top = certificates.at(-1) as X509Certificate;
    if (!roots.some((root) => top.verify(root.publicKey))) {
      throw new Error("the chain leads to no authority of the bundle");
    }
    if (certificates.some((one) => roots.some((root) => root.fingerprint256 === one.fingerprint256))) {
      throw new Error("a root in the chain");
    }
    return {
      id: id as X509Svid["id"],
      chain,
      keyDer,
      serial: leaf.serialNumber.toLowerCase(),
      notBefore: leaf.validFromDate.getTime(),
      notAfter: leaf.validToDate.getTime(),
      hint: svid.hint,
    };
  }

  /** The server must be `spiffe://<trust domain>/spire/server`. */
  #credentials(svid: X509Svid | null) {
    const wanted = `URI:spiffe://${this.#options.trustDomain}/spire/server`;
    const authorities = this.bundle?.x509Authorities.map(({ asn1 }) => asn1) ?? this.#options.roots;
    return spiffeCredentials({
      svid: svid === null ? null : new Cell<X509Svid | null>(svid),
      authorities: new Cell(authorities),
      refuse: ([leaf]) =>
        leaf !== undefined && new X509Certificate(leaf).subjectAltName === wanted ? null : "not the server",
    });
  }
}

/** A client of a service, on the connection that is open. */
type Connect = <M extends GenServiceMethods>(service: GenService<M>) => RpcClient<GenService<M>>;

const OWN_CHANNEL = { ...SPIFFE_CHANNEL_OPTIONS, "grpc.use_local_subchannel_pool": 1 };

function keep(entries: Map<string, Entry>, more: readonly Entry[]): void {
  for (const entry of more) {
    entries.set(entry.id, entry);
  }
}

async function next<T>(answers: AsyncIterator<T>): Promise<T> {
  const { value, done } = await answers.next();
  if (done === true) {
    throw new Error("the stream ended early");
  }
  return value;
}

/** A key, and a request that holds nothing but it: the server looks at nothing else. */
function newKey(): { readonly keyDer: Uint8Array; readonly csr: Uint8Array } {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ format: "der", type: "spki" });
  const csr = buildCsr({ spki, algorithm: "ecdsa-sha256" }, (info) => sign("sha256", info, privateKey));
  return { keyDer: privateKey.export({ format: "der", type: "pkcs8" }), csr };
}

/** The reason of a refusal, where it has one. */
export function reasonOf(error: ServiceError): Reason | null {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const [any] = bytes === undefined ? [] : fromBinary(StatusSchema, bytes as Buffer).details;
  return any === undefined ? null : (anyUnpack(any, PermissionDeniedDetailsSchema)?.reason ?? null);
}
