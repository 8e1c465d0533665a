/** Our own trust domain's bundle in the store: what each server signs with, and what an operator appended. */
import { type Bundle, emptyBundle } from "../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import type { BundleRecord } from "../../io/store/store.ts";
import { bundleFromDocument, bundleToDocument } from "./bundle-wire.ts";

/** INVARIANT: `sequence` grows with each change, whichever server made it: all of them say the same of the same bundle. */
export interface OwnBundle {
  readonly sequence: number;
  readonly appended: Bundle;
  /** By the server's id. */
  readonly servers: ReadonlyMap<string, Bundle>;
}

export type Authorities = Pick<Bundle, "x509Authorities" | "taintedX509KeyIds" | "jwtAuthorities">;

export function readOwnBundle(trustDomain: TrustDomain, record: BundleRecord | null): OwnBundle {
  if (record === null) {
    return { sequence: 0, appended: emptyBundle(trustDomain), servers: new Map() };
  }
  const { servers, appended } = JSON.parse(record.document) as { servers?: Record<string, string>; appended?: string };
  // Version 1 had what was appended alone.
  const kept = servers === undefined ? record.document : appended;
  return {
    sequence: record.sequence,
    appended: kept === undefined ? emptyBundle(trustDomain) : bundleFromDocument(trustDomain, kept),
    servers: new Map(
      Object.entries(servers ?? {}).map(([id, document]) => [id, bundleFromDocument(trustDomain, document)]),
    ),
  };
}

export function writeOwnBundle(trustDomain: TrustDomain, { sequence, appended, servers }: OwnBundle): BundleRecord {
  const documents = [...servers].map(([id, bundle]) => [id, bundleToDocument(bundle)] as const);
  const document = JSON.stringify({ appended: bundleToDocument(appended), servers: Object.fromEntries(documents) });
  return { trustDomain, sequence, document };
}

/** All of it as one bundle, what this server signs with (`local`) first. */
export function unionOf({ sequence, appended, servers }: OwnBundle, local: Bundle): Bundle {
  return { ...local, ...joined([local, ...servers.values(), appended]), sequence: BigInt(sequence) };
}

/** The authorities of several bundles, each once; what one says is tainted is tainted. */
export function joined(bundles: readonly Authorities[]): Authorities {
  const jwt = bundles.flatMap(({ jwtAuthorities }) => jwtAuthorities);
  const tainted = new Set(jwt.filter((authority) => authority.tainted).map(({ keyId }) => keyId));
  return {
    x509Authorities: distinct(
      bundles.flatMap(({ x509Authorities }) => x509Authorities),
      keyOf,
    ),
    taintedX509KeyIds: [...new Set(bundles.flatMap(({ taintedX509KeyIds }) => taintedX509KeyIds))],
    jwtAuthorities: distinct(jwt, ({ keyId }) => keyId).map((one) =>
      tainted.has(one.keyId) ? { ...one, tainted: true } : one,
    ),
  };
}

/**
 * What the store shall have of a server that signs with `next` from now on: of what is there, what it took back (it was in
 * `before`) is gone, and what an earlier run left behind, with keys that are lost, stays until it expires.
 */
export function publishedBy(stored: Bundle | undefined, before: Authorities | undefined, next: Bundle): Bundle {
  const left = stored === undefined ? [] : [before === undefined ? stored : without(stored, before)];
  return { ...next, ...joined([next, ...left]) };
}

function without(bundle: Bundle, gone: Authorities): Bundle {
  const certificates = new Set(gone.x509Authorities.map(keyOf));
  const keys = new Set(gone.jwtAuthorities.map(({ keyId }) => keyId));
  return {
    ...bundle,
    taintedX509KeyIds: bundle.taintedX509KeyIds.filter((id) => !gone.taintedX509KeyIds.includes(id)),
    x509Authorities: bundle.x509Authorities.filter((der) => !certificates.has(keyOf(der))),
    jwtAuthorities: bundle.jwtAuthorities.filter(({ keyId }) => !keys.has(keyId)),
  };
}

/**
 * Without what servers published and expired before `now`, or was appended and expired before `appendedBefore`, and without servers
 * that have nothing left; the same where nothing has.
 */
export function withoutExpired(own: OwnBundle, now: number, appendedBefore: number): OwnBundle {
  const servers = new Map([...own.servers].map(([id, bundle]) => [id, unexpired(bundle, now)] as const));
  const appended = unexpired(own.appended, appendedBefore);
  const live = new Map(
    [...servers].filter(([, bundle]) => bundle.x509Authorities.length + bundle.jwtAuthorities.length > 0),
  );
  const same = appended === own.appended && [...own.servers].every(([id, bundle]) => live.get(id) === bundle);
  return same ? own : { ...own, appended, servers: live };
}

/** Without a JWT key, whoever published it; the same where nobody did. */
export function withoutKey(own: OwnBundle, keyId: string): OwnBundle {
  const less = (bundle: Bundle): Bundle => {
    const jwtAuthorities = bundle.jwtAuthorities.filter((authority) => authority.keyId !== keyId);
    return jwtAuthorities.length === bundle.jwtAuthorities.length ? bundle : { ...bundle, jwtAuthorities };
  };
  const servers = new Map([...own.servers].map(([id, bundle]) => [id, less(bundle)] as const));
  const appended = less(own.appended);
  const same = appended === own.appended && [...own.servers].every(([id, bundle]) => servers.get(id) === bundle);
  return same ? own : { ...own, appended, servers };
}

function unexpired(bundle: Bundle, now: number): Bundle {
  const x509Authorities = bundle.x509Authorities.filter((der) => parseCertificate(der).notAfterMs > now);
  const jwtAuthorities = bundle.jwtAuthorities.filter(({ expiresAtMs }) => expiresAtMs === null || expiresAtMs > now);
  const kept = x509Authorities.length + jwtAuthorities.length;
  return kept === bundle.x509Authorities.length + bundle.jwtAuthorities.length
    ? bundle
    : { ...bundle, x509Authorities, jwtAuthorities };
}

/** Whether two servers' bundles have the same authorities, with the same taints. */
export function sameAuthorities(one: Authorities | undefined, other: Authorities): boolean {
  return one !== undefined && fingerprint(one) === fingerprint(other);
}

function fingerprint({ x509Authorities, taintedX509KeyIds, jwtAuthorities }: Authorities): string {
  const jwt = jwtAuthorities.map(({ keyId, tainted }) => `${keyId} ${tainted}`);
  return JSON.stringify([x509Authorities.map(keyOf).sort(), [...taintedX509KeyIds].sort(), jwt.sort()]);
}

function keyOf(der: Uint8Array): string {
  return Buffer.from(der).toString("base64");
}

/** The first of each key, where it stood. */
function distinct<T>(items: readonly T[], key: (item: T) => string): T[] {
  const found = new Map<string, T>();
  for (const item of items) {
    const name = key(item);
    if (!found.has(name)) {
      found.set(name, item);
    }
  }
  return [...found.values()];
}
