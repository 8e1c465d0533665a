/** For tests: a server's node API with a throwaway CA. */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { ServerWritableStream } from "@grpc/grpc-js";
import { status as Status } from "@grpc/grpc-js";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { signJws } from "../../core/jose/jws.ts";
import { makeSpiffeId, parseTrustDomain, pathOf, type SpiffeId, serverId } from "../../core/spiffe/id.ts";
import { jwtSvidClaims } from "../../core/spiffe/jwt-svid.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { verifyCsr } from "../../core/x509/csr.ts";
import { type TestCa, testCa, testKey, testLeaf } from "../../core/x509/fixture.ts";
import { certificatesToPem } from "../../core/x509/pem.ts";
import { Node, type WatchEvent, type WatchRequest } from "../../gen/everyhop/node/node_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { type Entry as EntryMessage, EntrySchema } from "../../gen/spire/api/types/entry_pb.js";
import { PermissionDeniedDetails_Reason, PermissionDeniedDetailsSchema } from "../../gen/spire/api/types/status_pb.js";
import type { Handlers } from "../../io/rpc/adapter.ts";
import { toStatus, withDetail } from "../../io/rpc/errors.ts";
import { listenTls, type RpcListener } from "../../io/rpc/listen.ts";
import { peerChain } from "../../io/tls.ts";
import { makeSvid } from "./own-identity.ts";

export const TRUST_DOMAIN = parseTrustDomain("example.com");
const HOUR_MS = 3_600_000;

export interface FakeEntry {
  readonly id: string;
  readonly spiffeId: string;
  readonly selectors: readonly string[];
  readonly hint?: string;
  readonly revision?: number;
  readonly createdAt?: number;
  readonly federatesWith?: readonly string[];
  readonly admin?: boolean;
  readonly downstream?: boolean;
}

/** What a test may change at any time. */
export interface FakeState {
  svidTtlMs: number;
  agentTtlMs: number;
  /** The token that lets an agent in, once. */
  token: string | null;
  /** Reason with which every call of an agent is denied. */
  deny: PermissionDeniedDetails_Reason | null;
  /** Every call of an agent is refused as one of somebody unknown. */
  denyAll: boolean;
  /** Every call fails as if the server were starting. */
  unavailable: boolean;
  /** Above so many entries revisions are sent first. */
  pageSize: number;
  push: boolean;
  reattestable: boolean;
  /** Entries for which nothing is signed. */
  readonly unsigned: Set<string>;
}

type Watcher = ServerWritableStream<WatchRequest, Partial<WatchEvent>>;

/** A server of the node API. Its clock is the agent's; its certificates began an hour ago. */
export class FakeServer {
  readonly state: FakeState = {
    svidTtlMs: HOUR_MS,
    agentTtlMs: HOUR_MS,
    token: "token-1",
    deny: null,
    denyAll: false,
    unavailable: false,
    pageSize: 500,
    push: true,
    reattestable: false,
    unsigned: new Set(),
  };
  readonly clock: Clock;
  ca: TestCa;
  readonly calls = new Map<string, number>();
  readonly tainted = new Set<string>();
  /** Serial of the agent's certificate on the last call that had one. */
  lastSerial = "";
  readonly #jwtKey: KeyObject;
  readonly #jwtPublic: Uint8Array;
  readonly #svid;
  #authorities: Uint8Array[];
  #entries = new Map<string, FakeEntry>();
  #revision = 1n;
  #bundleSequence = 1n;
  readonly #watchers = new Set<Watcher>();
  #listener: RpcListener<readonly Uint8Array[]> | null = null;
  #port = 0;
  readonly federated = new Map<string, readonly Uint8Array[]>();
  /** JWT keys of federated trust domains, SubjectPublicKeyInfo; each is named `foreign`. */
  readonly federatedJwt = new Map<string, Uint8Array>();

  constructor(clock: Clock) {
    this.clock = clock;
    this.ca = this.#newCa("first");
    this.#authorities = [this.ca.der];
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    this.#jwtKey = privateKey;
    this.#jwtPublic = publicKey.export({ format: "der", type: "spki" });
    this.#svid = new Cell(this.#ownSvid());
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get bundlePem(): string {
    return certificatesToPem(this.#authorities);
  }

  async listen(): Promise<void> {
    const handlers = this.#handlers();
    this.#listener = await listenTls({ host: "127.0.0.1", port: this.#port }, this.#svid, {
      services: handlers,
      identify: (socket) => peerChain(socket),
    });
    this.#port = this.#listener.port;
  }

  /** Goes away; `listen` brings it back on the same port. */
  async close(): Promise<void> {
    await this.#listener?.close();
    this.#listener = null;
    this.#watchers.clear();
  }

  setEntries(...entries: readonly FakeEntry[]): void {
    this.#entries = new Map(entries.map((entry) => [entry.id, entry]));
    this.#revision += 1n;
    this.#push();
  }

  addEntry(entry: FakeEntry): void {
    this.setEntries(...this.#entries.values(), entry);
  }

  /** From now on a new authority signs; the old one stays in the bundle, unless dropped or tainted. */
  rotateCa(old: "keep" | "drop" | "taint" = "keep"): void {
    const before = this.ca;
    this.ca = this.#newCa(`ca ${this.#bundleSequence}`);
    this.#authorities = old === "drop" ? [this.ca.der] : [before.der, this.ca.der];
    if (old === "taint") {
      this.tainted.add(Buffer.from(before.der).toString("base64"));
    }
    this.#svid.set(this.#ownSvid());
    this.#bundleSequence += 1n;
    this.#push();
  }

  /** Signs outside of any entry. */
  sign(spiffeId: string, ttlMs: number, options: { ca?: TestCa; notBeforeMs?: number } = {}) {
    const key = testKey();
    const now = this.clock.now();
    const dates = { notBeforeMs: options.notBeforeMs ?? now - HOUR_MS, notAfterMs: now + ttlMs };
    const leaf = testLeaf(options.ca ?? this.ca, spiffeId, dates, key);
    return makeSvid([leaf], key.key.export({ format: "der", type: "pkcs8" }));
  }

  #newCa(name: string): TestCa {
    const now = this.clock.now();
    return testCa(name, { notBeforeMs: now - 24 * HOUR_MS, notAfterMs: now + 24 * HOUR_MS });
  }

  #ownSvid() {
    return this.sign(serverId(TRUST_DOMAIN), 12 * HOUR_MS);
  }

  #push(): void {
    for (const watcher of this.#watchers) {
      watcher.write({ entriesRevision: this.#revision, bundleSequence: this.#bundleSequence });
    }
  }

  #signFor(spiffeId: SpiffeId, csr: Uint8Array, ttlMs: number) {
    const { spki } = verifyCsr(csr);
    const now = this.clock.now();
    const leaf = testLeaf(this.ca, spiffeId, { spki, notBeforeMs: now - HOUR_MS, notAfterMs: now + ttlMs });
    const id = { trustDomain: TRUST_DOMAIN, path: pathOf(spiffeId) };
    return { certChain: [leaf], id, expiresAt: BigInt(Math.floor((now + ttlMs) / 1_000)) };
  }

  /** What every call goes through. */
  #enter(name: string, call: { getPeer(): string }, anyone = false): SpiffeId | null {
    this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
    if (this.state.unavailable) {
      throw new EveryhopError("unavailable", "the server is starting");
    }
    const chain = this.#listener?.peerOf(call) ?? [];
    if (chain.length > 0) {
      const leaf = parseCertificate(chain[0] as Uint8Array);
      this.lastSerial = leaf.serial;
    }
    if (anyone) {
      return null;
    }
    if (this.state.denyAll) {
      throw new EveryhopError("permission-denied", `authorization denied for method ${name}`);
    }
    if (chain.length === 0 || this.state.deny !== null) {
      const reason = this.state.deny ?? PermissionDeniedDetails_Reason.AGENT_NOT_ATTESTED;
      throw withDetail(new EveryhopError("permission-denied", "denied"), PermissionDeniedDetailsSchema, { reason });
    }
    return makeSpiffeId(TRUST_DOMAIN, "/spire/agent/join_token/token-1");
  }

  #handlers() {
    return [
      { service: Agent, handlers: this.#agent() },
      { service: Bundle, handlers: this.#bundle() },
      { service: Entry, handlers: this.#entry() },
      { service: SVID, handlers: this.#svids() },
      { service: Node, handlers: this.#node() },
    ];
  }

  #agent(): Partial<Handlers<typeof Agent>> {
    return {
      attestAgent: (call) => {
        call.on("data", (request) => {
          try {
            this.#enter("attestAgent", call, true);
            if (request.step.case !== "params" || request.step.value.data?.type !== "join_token") {
              throw new EveryhopError("invalid-argument", "not supported");
            }
            const token = Buffer.from(request.step.value.data.payload).toString();
            if (token !== this.state.token) {
              throw new EveryhopError("invalid-argument", "join token does not exist or has already been used");
            }
            this.state.token = null;
            const id = makeSpiffeId(TRUST_DOMAIN, `/spire/agent/join_token/${token}`);
            const svid = this.#signFor(id, request.step.value.params?.csr ?? new Uint8Array(), this.state.agentTtlMs);
            call.write({ step: { case: "result", value: { svid, reattestable: this.state.reattestable } } });
            call.end();
          } catch (error) {
            call.emit("error", toStatus(error));
          }
        });
      },
      renewAgent: this.#unary("renewAgent", (request, id) => ({
        svid: this.#signFor(id, request.params?.csr ?? new Uint8Array(), this.state.agentTtlMs),
      })),
      postStatus: this.#unary("postStatus", () => ({})),
    };
  }

  #bundle(): Partial<Handlers<typeof Bundle>> {
    return {
      getBundle: this.#unary(
        "getBundle",
        () => ({
          trustDomain: TRUST_DOMAIN,
          x509Authorities: this.#authorities.map((asn1) => ({
            asn1,
            tainted: this.tainted.has(Buffer.from(asn1).toString("base64")),
          })),
          jwtAuthorities: [{ keyId: "jwt-1", publicKey: this.#jwtPublic, expiresAt: 0n }],
          sequenceNumber: this.#bundleSequence,
        }),
        true,
      ),
      getFederatedBundle: this.#unary("getFederatedBundle", ({ trustDomain }) => {
        const authorities = this.federated.get(trustDomain);
        if (authorities === undefined) {
          throw new EveryhopError("not-found", "no bundle");
        }
        const publicKey = this.federatedJwt.get(trustDomain);
        const jwtAuthorities = publicKey === undefined ? [] : [{ keyId: "foreign", publicKey, expiresAt: 0n }];
        const x509Authorities = authorities.map((asn1) => ({ asn1 }));
        return { trustDomain, x509Authorities, jwtAuthorities, sequenceNumber: 1n };
      }),
    };
  }

  #entry(): Partial<Handlers<typeof Entry>> {
    return {
      syncAuthorizedEntries: (call) => {
        call.on("data", (request) => {
          try {
            this.#enter("syncAuthorizedEntries", call);
            const all = [...this.#entries.values()].map(message);
            if (request.ids.length > 0) {
              const wanted = all.filter(({ id }) => request.ids.includes(id));
              call.write({ entries: wanted, more: false });
            } else if (all.length <= this.state.pageSize) {
              call.write({ entries: all, more: false });
            } else {
              for (let at = 0; at < all.length; at += this.state.pageSize) {
                const page = all.slice(at, at + this.state.pageSize);
                call.write({
                  entryRevisions: page.map(({ id, revisionNumber, createdAt }) => ({ id, revisionNumber, createdAt })),
                  more: at + this.state.pageSize < all.length,
                });
              }
            }
          } catch (error) {
            call.emit("error", toStatus(error));
          }
        });
        call.on("end", () => call.end());
      },
    };
  }

  #svids(): Partial<Handlers<typeof SVID>> {
    return {
      batchNewX509SVID: this.#unary("batchNewX509SVID", ({ params }) => ({
        results: params.map(({ entryId, csr }) => {
          const known = this.#entries.get(entryId);
          return known === undefined || this.state.unsigned.has(entryId)
            ? { status: { code: Status.NOT_FOUND, message: "entry not found or not authorized" } }
            : { status: { code: 0 }, svid: this.#signFor(known.spiffeId as SpiffeId, csr, this.state.svidTtlMs) };
        }),
      })),
      newJWTSVID: this.#unary("newJWTSVID", ({ entryId, audience }) => {
        const known = this.#entries.get(entryId);
        if (known === undefined) {
          throw new EveryhopError("not-found", "entry not found or not authorized");
        }
        const now = this.clock.now();
        const id = known.spiffeId as SpiffeId;
        const expiresAtMs = now + Math.min(this.state.svidTtlMs, 300_000);
        const claims = jwtSvidClaims({ id, audiences: audience, issuedAtMs: now, expiresAtMs });
        const token = signJws({ alg: "ES256", kid: "jwt-1", typ: "JWT" }, JSON.stringify(claims), this.#jwtKey);
        return {
          svid: {
            token,
            id: { trustDomain: TRUST_DOMAIN, path: pathOf(id) },
            issuedAt: BigInt(Math.floor(now / 1_000)),
            expiresAt: BigInt(Math.floor(expiresAtMs / 1_000)),
          },
        };
      }),
    };
  }

  #node(): Handlers<typeof Node> {
    return {
      watch: (call) => {
        try {
          this.#enter("watch", call);
          if (!this.state.push) {
            throw new EveryhopError("not-supported", "unknown service");
          }
          this.#watchers.add(call);
          call.on("cancelled", () => this.#watchers.delete(call));
          call.write({ entriesRevision: this.#revision, bundleSequence: this.#bundleSequence });
        } catch (error) {
          call.emit("error", toStatus(error));
        }
      },
    };
  }

  #unary<Q, A>(name: string, answer: (request: Q, agent: SpiffeId) => A, anyone = false) {
    return (
      call: { readonly request: Q; getPeer(): string },
      callback: (error: object | null, reply?: A) => void,
    ): void => {
      try {
        callback(null, answer(call.request, this.#enter(name, call, anyone) as SpiffeId));
      } catch (error) {
        callback(toStatus(error));
      }
    };
  }
}

function message(entry: FakeEntry): EntryMessage {
  return create(EntrySchema, {
    id: entry.id,
    spiffeId: { trustDomain: TRUST_DOMAIN, path: pathOf(entry.spiffeId as SpiffeId) },
    parentId: { trustDomain: TRUST_DOMAIN, path: "/spire/agent/join_token/token-1" },
    selectors: entry.selectors.map((selector) => ({
      type: selector.slice(0, selector.indexOf(":")),
      value: selector.slice(selector.indexOf(":") + 1),
    })),
    hint: entry.hint ?? "",
    revisionNumber: BigInt(entry.revision ?? 0),
    createdAt: BigInt(entry.createdAt ?? 0),
    federatesWith: [...(entry.federatesWith ?? [])],
    admin: entry.admin ?? false,
    downstream: entry.downstream ?? false,
  });
}
