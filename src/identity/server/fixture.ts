/** A server in this process, with real TLS on a free port and a real database, on a fake clock; and agents that talk to it. */
import { createPrivateKey, generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { credentials, type ServiceError, status } from "@grpc/grpc-js";
import { Registry as Metrics } from "prom-client";
import { Cell } from "../../core/base/cell.ts";
import { FakeClock } from "../../core/base/clock.ts";
import type { Role } from "../../core/entries/role.ts";
import { parseSpiffeId, parseTrustDomain, pathOf, type SpiffeId, trustDomainOf } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { buildCsr } from "../../core/x509/csr-build.ts";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { Agent, type AttestAgentResponse } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import {
  PermissionDeniedDetailsSchema,
  type PermissionDeniedDetails_Reason as Reason,
} from "../../gen/spire/api/types/status_pb.js";
import type { KeyStore } from "../../io/keys.ts";
import { silentLog } from "../../io/log.ts";
import { makeClient, type RpcClient } from "../../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../../io/rpc/channel.ts";
import { diskStateFile } from "../../io/state-file.ts";
import { openSqliteStore } from "../../io/store/sqlite.ts";
import type { Store } from "../../io/store/store.ts";
import type { NodeVerifier } from "../attest/node/proof.ts";
import { Authority } from "../authority/authority.ts";
import { localSigner, TEST_CEILINGS } from "../authority/fixture.ts";
import type { SignerLink } from "../authority/signer-link.ts";
import { Bundles } from "./bundles.ts";
import { ChangeLog } from "./change-log.ts";
import { IdentityServer, type Listening } from "./identity-server.ts";
import { storeJournal } from "./journal.ts";
import { Registry } from "./registry.ts";

export const trustDomain = parseTrustDomain("example.com");
export const id = (path: string): SpiffeId => parseSpiffeId(`spiffe://example.com${path}`);
export const wire = (spiffeId: SpiffeId) => ({
  trustDomain: trustDomainOf(spiffeId) as string,
  path: pathOf(spiffeId),
});

export interface TestKey {
  readonly keyDer: Uint8Array;
  readonly csr: Uint8Array;
}

export function testKey(names: { uris?: readonly string[]; dnsNames?: readonly string[] } = {}): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { format: "der", type: "spki" },
    privateKeyEncoding: { format: "der", type: "pkcs8" },
  });
  const key = createPrivateKey({ key: privateKey, format: "der", type: "pkcs8" });
  const template = { spki: publicKey, algorithm: "ecdsa-sha256", ...names } as const;
  return { keyDer: privateKey, csr: buildCsr(template, (info) => sign("sha256", info, key)) };
}

type Client<M extends GenServiceMethods> = RpcClient<GenService<M>>;

export interface TestServer {
  readonly clock: FakeClock;
  readonly store: Store;
  readonly registry: Registry;
  readonly authority: Authority;
  readonly signer: SignerLink;
  readonly identity: IdentityServer;
  readonly changes: ChangeLog;
  readonly adminSocket: string;
  /** `host:port` of the node API. */
  readonly address: string;
  /** A client on the admin socket. */
  local<M extends GenServiceMethods>(service: GenService<M>): Client<M>;
  /** A client over TLS with this identity. */
  remote<M extends GenServiceMethods>(service: GenService<M>, svid: X509Svid | null): Client<M>;
  /** An agent that attested with a fresh token. */
  agent(): Promise<X509Svid>;
  entry(spiffeId: SpiffeId, parent: SpiffeId, selectors?: readonly string[]): Promise<string>;
}

export interface TestServerOptions {
  readonly dir?: string;
  readonly keys?: KeyStore;
  /** Of another server, to be a replica of. */
  readonly store?: Store;
  readonly serverId?: string;
  readonly clock?: FakeClock;
  readonly x509SvidTtlMs?: number;
  readonly roles?: readonly Role[];
  readonly verifiers?: readonly NodeVerifier[];
}

export async function testServer(t: TestContext, options: TestServerOptions = {}): Promise<TestServer> {
  const dir = options.dir ?? mkdtempSync(join(tmpdir(), "everyhop-server-"));
  const ends: (() => unknown)[] = [];
  t.after(async () => {
    for (const end of ends.reverse()) {
      await end();
    }
    if (options.dir === undefined) {
      rmSync(dir, { recursive: true });
    }
  });
  // OpenSSL judges certificates by the machine's clock.
  const { clock = new FakeClock(Date.now()), keys, x509SvidTtlMs = 3_600_000 } = options;
  const store = options.store ?? (await openSqliteStore(join(dir, "server.db")));
  if (options.store === undefined) {
    ends.push(() => store.close());
  }
  const setup = {
    trustDomain,
    keys: { kind: "memory" },
    logDir: join(dir, "signer-log"),
    ceilings: TEST_CEILINGS,
  } as const;
  const signer = await localSigner(setup, keys === undefined ? { clock } : { clock, keys });
  ends.push(() => signer.close());
  const registry = await Registry.open({ store, trustDomain, clock });
  const bundles = new Bundles({ store, registry, serverId: options.serverId ?? "server-1" });
  const authority = await Authority.open({
    announce: (bundle, fresh) => bundles.announce(bundle, fresh),
    trustDomain,
    signer,
    kept: diskStateFile(join(dir, "authorities.json")),
    journal: storeJournal(store.issuance, clock),
    clock,
    x509SvidTtlMs,
  });
  ends.push(() => authority.close());
  const log = silentLog;
  const metrics = new Metrics();
  const { roles = [], verifiers = [] } = options;
  const nodeVerifiers = () => verifiers;
  const changes = await ChangeLog.open({ dir: join(dir, "changes"), clock });
  ends.push(() => changes.close());
  const shared = { trustDomain, store, registry, bundles, authority, changes, clock, log, metrics };
  const identity = await IdentityServer.open({ ...shared, roles, nodeVerifiers });
  ends.push(() => identity.close());
  const adminSocket = join(dir, "admin.sock");
  const listen = [{ host: "127.0.0.1", port: 0 }];
  const listening = await identity.listen({ listen, adminSocket, admin: {}, seen: async () => [] });
  ends.push(() => listening.close());
  return {
    clock,
    store,
    registry,
    authority,
    signer,
    identity,
    changes,
    adminSocket,
    address: `127.0.0.1:${listening.addresses[0]?.port}`,
    ...clients(identity, listening, adminSocket, ends),
  };
}

function clients(
  identity: IdentityServer,
  listening: Listening,
  adminSocket: string,
  ends: (() => unknown)[],
): Pick<TestServer, "local" | "remote" | "agent" | "entry"> {
  const kept = <C extends { close(): void }>(client: C): C => {
    ends.push(() => client.close());
    return client;
  };
  const local: TestServer["local"] = (service) =>
    kept(makeClient(service, `unix:${adminSocket}`, credentials.createInsecure()));
  const remote: TestServer["remote"] = (service, svid) => {
    const channel = {
      svid: svid === null ? null : new Cell<X509Svid | null>(svid),
      authorities: identity.authorities,
      refuse: () => null,
    };
    const target = `127.0.0.1:${listening.addresses[0]?.port}`;
    // A channel of its own: each test's client is one connection.
    const own = { ...SPIFFE_CHANNEL_OPTIONS, "grpc.use_local_subchannel_pool": 1 };
    return kept(makeClient(service, target, spiffeCredentials(channel), own));
  };
  return {
    local,
    remote,
    async agent() {
      const { value } = await local(Agent).createJoinToken({ ttl: 60 });
      return attest(remote(Agent, null), value);
    },
    async entry(spiffeId, parent, selectors = ["unix:uid:0"]) {
      const { results } = await local(Entry).batchCreateEntry({
        entries: [{ spiffeId: wire(spiffeId), parentId: wire(parent), selectors: selectors.map(wireSelector) }],
      });
      return results[0]?.entry?.id ?? "";
    },
  };
}

export function wireSelector(selector: string): { type: string; value: string } {
  const colon = selector.indexOf(":");
  return { type: selector.slice(0, colon), value: selector.slice(colon + 1) };
}

/** Attests with a join token; rejects with what the server answered. */
export async function attest(client: RpcClient<typeof Agent>, token: string, key = testKey()): Promise<X509Svid> {
  const call = client.attestAgent();
  const answer = new Promise<AttestAgentResponse>((resolve, reject) => {
    call.once("data", resolve);
    call.once("error", reject);
  });
  const data = { type: "join_token", payload: Buffer.from(token) };
  call.write({ step: { case: "params", value: { data, params: { csr: key.csr } } } });
  const { step } = await answer;
  call.end();
  if (step.case !== "result") {
    throw new Error("expected a result");
  }
  return svidOf(step.value.svid?.certChain ?? [], key);
}

export function svidOf(chain: readonly Uint8Array[], { keyDer }: TestKey): X509Svid {
  const leaf = parseCertificate(chain[0] ?? new Uint8Array());
  return {
    id: parseSpiffeId(leaf.names?.uris[0] ?? ""),
    chain,
    keyDer,
    serial: leaf.serial,
    notBefore: leaf.notBeforeMs,
    notAfter: leaf.notAfterMs,
    hint: "",
  };
}

/** A refusal with that code. */
export const failsWith = (code: number, message?: RegExp) => (error: ServiceError) =>
  error.code === code && (message === undefined || message.test(error.details));

/** What an agent reads of a refusal. */
function reasonOf(error: ServiceError): Reason | null {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const [any] = bytes === undefined ? [] : fromBinary(StatusSchema, bytes as Buffer).details;
  return any === undefined ? null : (anyUnpack(any, PermissionDeniedDetailsSchema)?.reason ?? null);
}

export const refusedBecause = (reason: Reason) => (error: ServiceError) =>
  error.code === status.PERMISSION_DENIED && reasonOf(error) === reason;
