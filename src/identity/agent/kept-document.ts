/** What the agent keeps on disk of what it can hand out: one document, whole or not at all. */
import type { RegistrationEntry } from "../../core/entries/entry.ts";
import type { Bundle } from "../../core/spiffe/bundle.ts";
import type { SpiffeId } from "../../core/spiffe/id.ts";
import type { HeldSvid } from "./cache.ts";
import type { NodeJwtSvid } from "./node-api.ts";
import { makeSvid } from "./own-identity.ts";

export interface KeptIdentities {
  readonly agentId: SpiffeId;
  /** Grows with every document written; an older one than was last written is no longer to be believed. */
  readonly generation: number;
  /** When it was last in step with the server. */
  readonly syncedAtMs: number;
  /** Those that have an SVID. */
  readonly entries: readonly RegistrationEntry[];
  readonly svids: ReadonlyMap<string, HeldSvid>;
  readonly bundles: readonly Bundle[];
  readonly tokens: readonly (readonly [string, NodeJwtSvid])[];
}

/** More than an agent prefetches; beyond it, the oldest entries are kept. */
const MAX_SVIDS = 10_000;

export function formatKept(kept: KeptIdentities): Uint8Array {
  const { agentId, generation, syncedAtMs, tokens } = kept;
  const entries = kept.entries.filter(({ id }) => kept.svids.has(id)).slice(0, MAX_SVIDS);
  const document = {
    agentId,
    generation,
    syncedAtMs,
    entries,
    svids: entries.map(({ id }) => {
      const { svid, revision, renewAtMs } = kept.svids.get(id) as HeldSvid;
      return { id, revision, renewAtMs, chain: svid.chain.map(toBase64), key: toBase64(svid.keyDer) };
    }),
    bundles: kept.bundles.map((bundle) => ({
      ...bundle,
      x509Authorities: bundle.x509Authorities.map(toBase64),
      jwtAuthorities: bundle.jwtAuthorities.map((one) => ({ ...one, publicKey: toBase64(one.publicKey) })),
      sequence: String(bundle.sequence),
    })),
    tokens,
  };
  return Buffer.from(JSON.stringify(document));
}

/**
 * Reads what `formatKept` wrote and nobody else could have written: it was sealed. Throws where it is of another version all the
 * same.
 */
export function parseKept(bytes: Uint8Array): KeptIdentities {
  const document = JSON.parse(Buffer.from(bytes).toString()) as KeptJson;
  const hints = new Map(document.entries.map(({ id, hint }) => [id, hint]));
  const svids = document.svids.map(({ id, revision, renewAtMs, chain, key }) => {
    const svid = makeSvid(chain.map(fromBase64), fromBase64(key), hints.get(id));
    return [id, { svid, revision, renewAtMs }] as const;
  });
  return {
    ...document,
    svids: new Map(svids),
    bundles: document.bundles.map((bundle) => ({
      ...bundle,
      x509Authorities: bundle.x509Authorities.map(fromBase64),
      jwtAuthorities: bundle.jwtAuthorities.map((one) => ({ ...one, publicKey: fromBase64(one.publicKey) })),
      sequence: BigInt(bundle.sequence),
    })),
  };
}

type Jwt = Bundle["jwtAuthorities"][number];
interface KeptJson extends Omit<KeptIdentities, "svids" | "bundles"> {
  readonly svids: readonly { id: string; revision: number; renewAtMs: number; chain: string[]; key: string }[];
  readonly bundles: readonly (Omit<Bundle, "x509Authorities" | "jwtAuthorities" | "sequence"> & {
    readonly x509Authorities: readonly string[];
    readonly jwtAuthorities: readonly (Omit<Jwt, "publicKey"> & { readonly publicKey: string })[];
    readonly sequence: string;
  })[];
}

const toBase64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
const fromBase64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
