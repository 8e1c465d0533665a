/** SPIRE's node API as the agent uses it, on one connection with one identity. SPEC: SPIRE, spire.api.server.* v1. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type ClientDuplexStream, type ServiceError, status as Status } from "@grpc/grpc-js";
import { Cell } from "../../core/base/cell.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import { VERSION } from "../../core/base/version.ts";
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import type { Bundle } from "../../core/spiffe/bundle.ts";
import { serverId, type TrustDomain } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { bundlesOf, verifyX509Svid } from "../../core/spiffe/x509-svid.ts";
import { Node } from "../../gen/everyhop/node/node_pb.js";
import {
  Agent,
  type AttestAgentRequestSchema,
  type AttestAgentResponse,
} from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { Bundle as BundleService } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../../gen/spire/api/server/entry/v1/entry_pb.js";
import { SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import type { X509SVID } from "../../gen/spire/api/types/x509svid_pb.js";
import { makeClient } from "../../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../../io/rpc/channel.ts";
import type { NodeProof } from "../attest/node/proof.ts";
import { readBundle } from "./read-bundle.ts";
import { syncEntries } from "./sync-entries.ts";

export interface NodeApiOptions {
  /** `host:port`. */
  readonly server: string;
  readonly trustDomain: TrustDomain;
  readonly authorities: Cell<readonly Uint8Array[]>;
  /** Null: attestation alone is possible. */
  readonly svid: X509Svid | null;
  readonly clock: Clock;
}

export interface Attested {
  readonly chain: readonly Uint8Array[];
  readonly reattestable: boolean;
}

export interface WatchedRevisions {
  readonly entries: bigint;
  readonly bundle: bigint;
}

export type Signed =
  | { readonly ok: true; readonly chain: readonly Uint8Array[] }
  | { readonly ok: false; readonly message: string };

export interface NodeJwtSvid {
  readonly token: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
}

/** Every method rejects with grpc-js's ServiceError where the call fails; see failure.ts for what it means. */
export interface NodeApi {
  attest(proof: NodeProof, csr: Uint8Array): Promise<Attested>;
  renew(csr: Uint8Array): Promise<readonly Uint8Array[]>;
  bundle(): Promise<Bundle>;
  /** Null where the server has none. */
  federatedBundle(trustDomain: TrustDomain): Promise<Bundle | null>;
  entries(known: ReadonlyMap<string, RegistrationEntry>): Promise<readonly RegistrationEntry[]>;
  /** Answers in order. */
  signX509(requests: readonly { readonly entryId: string; readonly csr: Uint8Array }[]): Promise<readonly Signed[]>;
  signJwt(entryId: string, audience: readonly string[]): Promise<NodeJwtSvid>;
  postStatus(bundleSequence: bigint): Promise<void>;
  /** Told of each change; `onEnd` comes once, unless ended by the function returned. */
  watch(onChange: (revisions: WatchedRevisions) => void, onEnd: (error: ServiceError) => void): () => void;
  close(): void;
}

const LONG_CALL_MS = 30_000;

export function connectNodeApi(options: NodeApiOptions): NodeApi {
  const credentials = spiffeCredentials({
    svid: options.svid === null ? null : new Cell<X509Svid | null>(options.svid),
    authorities: options.authorities,
    refuse: (chain) => serverFault(chain, options),
  });
  const share = makeClient(Agent, options.server, credentials, {
    ...SPIFFE_CHANNEL_OPTIONS,
    // Another channel's connection would carry another identity.
    "grpc.use_local_subchannel_pool": 1,
  });
  const bundles = makeClient(BundleService, options.server, credentials, { share });
  const entries = makeClient(Entry, options.server, credentials, { share });
  const svids = makeClient(SVID, options.server, credentials, { share });
  const node = makeClient(Node, options.server, credentials, { share });
  return {
    attest: (proof, csr) => attest(share.attestAgent({ deadlineMs: LONG_CALL_MS }), proof, csr),
    async renew(csr) {
      const { svid } = await share.renewAgent({ params: { csr } });
      return chainOf(svid);
    },
    bundle: async () => readBundle(await bundles.getBundle({})),
    async federatedBundle(trustDomain) {
      try {
        return readBundle(await bundles.getFederatedBundle({ trustDomain }));
      } catch (error) {
        if ((error as Partial<ServiceError>).code === Status.NOT_FOUND) {
          return null;
        }
        throw error;
      }
    },
    entries: (known) => syncEntries(entries.syncAuthorizedEntries({ deadlineMs: LONG_CALL_MS }), known),
    async signX509(requests) {
      const { results } = await svids.batchNewX509SVID({ params: [...requests] }, { deadlineMs: LONG_CALL_MS });
      return requests.map((_, index) => {
        const { status, svid } = results[index] ?? {};
        return svid !== undefined && (status?.code ?? Status.OK) === Status.OK
          ? { ok: true, chain: chainOf(svid) }
          : { ok: false, message: status?.message ?? "the server gave no answer" };
      });
    },
    async signJwt(entryId, audience) {
      const { svid } = await svids.newJWTSVID({ entryId, audience: [...audience] });
      if (svid === undefined || svid.token === "" || svid.issuedAt === 0n || svid.expiresAt < svid.issuedAt) {
        throw new EveryhopError("unavailable", "the server answered without a usable JWT-SVID");
      }
      const { token, issuedAt, expiresAt } = svid;
      return { token, issuedAtMs: Number(issuedAt) * 1_000, expiresAtMs: Number(expiresAt) * 1_000 };
    },
    async postStatus(bundleSequence) {
      await share.postStatus({ currentBundleSerial: bundleSequence, agentVersion: `everyhop/${VERSION}` });
    },
    watch(onChange, onEnd) {
      const stream = node.watch({});
      let ended = false;
      stream.on("data", (event) => ended || onChange({ entries: event.entriesRevision, bundle: event.bundleSequence }));
      const end = (error: ServiceError) => {
        if (!ended) {
          ended = true;
          onEnd(error);
        }
      };
      stream.on("error", end);
      stream.on("end", () =>
        end(Object.assign(new Error("the server ended the watch"), { code: Status.UNAVAILABLE }) as ServiceError),
      );
      return () => {
        ended = true;
        stream.cancel();
      };
    },
    close: () => share.close(),
  };
}

/** SPEC: SPIRE: the server is `spiffe://<trust domain>/spire/server`, and nobody else is asked. */
function serverFault(chain: readonly Uint8Array[], options: NodeApiOptions): string | null {
  const { trustDomain, authorities, clock } = options;
  const verified = verifyX509Svid(chain, bundlesOf(new Map([[trustDomain, authorities.value]])), clock.now());
  if (!verified.ok) {
    return verified.message;
  }
  return verified.id === serverId(trustDomain)
    ? null
    : `the server is \`${verified.id}\`, not \`${serverId(trustDomain)}\``;
}

function chainOf(svid: X509SVID | undefined): readonly Uint8Array[] {
  if (svid === undefined || svid.certChain.length === 0) {
    throw new EveryhopError("unavailable", "the server answered without a certificate");
  }
  return svid.certChain;
}

type AttestStream = ClientDuplexStream<MessageInitShape<typeof AttestAgentRequestSchema>, AttestAgentResponse>;

async function attest(stream: AttestStream, proof: NodeProof, csr: Uint8Array): Promise<Attested> {
  const { type, payload } = proof;
  stream.write({ step: { case: "params", value: { data: { type, payload }, params: { csr } } } });
  for await (const message of stream as AsyncIterable<AttestAgentResponse>) {
    const { step } = message;
    if (step.case === "challenge") {
      stream.write({ step: { case: "challengeResponse", value: await proof.answer(step.value) } });
    } else if (step.case === "result") {
      stream.end();
      return { chain: chainOf(step.value.svid), reattestable: step.value.reattestable };
    }
  }
  throw new EveryhopError("unavailable", "the server ended the attestation without a result");
}
