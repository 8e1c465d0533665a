/** The agent's own SVID, and the bundle it trusts the server by, across restarts. */
import { readFile, stat } from "node:fs/promises";
import { EveryhopError } from "../../core/base/errors.ts";
import { parseBundle } from "../../core/spiffe/bundle.ts";
import { parseSpiffeId, type TrustDomain, trustDomainOf } from "../../core/spiffe/id.ts";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { identityOf } from "../../core/spiffe/x509-svid.ts";
import { parseCertificate } from "../../core/x509/certificate.ts";
import { certificatesFromPem } from "../../core/x509/pem.ts";
import type { KeyStore } from "../../io/keys.ts";

export interface OwnIdentity {
  readonly svid: X509Svid;
  /** Half-life counts from here: an SVID's notBefore lies in the past. */
  readonly obtainedAtMs: number;
  readonly reattestable: boolean;
}

const SVID_NAME = "agent-svid.json";
const BUNDLE_NAME = "bundle.json";

/** An SVID from its chain and key. Errors: `unavailable` where the certificate is of no SPIFFE identity. */
export function makeSvid(chain: readonly Uint8Array[], keyDer: Uint8Array, hint = ""): X509Svid {
  const leaf = parseCertificate(chain[0] ?? new Uint8Array());
  const identity = identityOf(leaf);
  if (!identity.ok) {
    throw new EveryhopError("unavailable", `the server signed no X.509-SVID: ${identity.message}`);
  }
  const { serial, notBeforeMs: notBefore, notAfterMs: notAfter } = leaf;
  return { id: identity.id, chain, keyDer, serial, notBefore, notAfter, hint };
}

/** Null where there is none, it has expired, or it is of another trust domain. */
export async function loadOwnIdentity(
  keys: KeyStore,
  trustDomain: TrustDomain,
  now: number,
): Promise<OwnIdentity | null> {
  const stored = await readJson(keys, SVID_NAME);
  if (stored === null) {
    return null;
  }
  const { chain, key, obtainedAtMs, reattestable } = stored as Record<string, unknown>;
  if (!isBase64List(chain) || typeof key !== "string" || typeof obtainedAtMs !== "number") {
    throw damaged(SVID_NAME);
  }
  const svid = makeSvid(chain.map(fromBase64), fromBase64(key));
  if (trustDomainOf(parseSpiffeId(svid.id)) !== trustDomain || svid.notAfter <= now) {
    return null;
  }
  return { svid, obtainedAtMs, reattestable: reattestable === true };
}

export async function saveOwnIdentity(keys: KeyStore, own: OwnIdentity): Promise<void> {
  const { svid, obtainedAtMs, reattestable } = own;
  const document = { chain: svid.chain.map(toBase64), key: toBase64(svid.keyDer), obtainedAtMs, reattestable };
  await keys.write(SVID_NAME, new TextEncoder().encode(JSON.stringify(document)));
}

export async function forgetOwnIdentity(keys: KeyStore): Promise<void> {
  await keys.remove(SVID_NAME);
}

export interface TrustedAuthorities {
  readonly authorities: readonly Uint8Array[];
  readonly savedAtMs: number;
}

export async function saveAuthorities(keys: KeyStore, trusted: TrustedAuthorities): Promise<void> {
  const document = { authorities: trusted.authorities.map(toBase64), savedAtMs: trusted.savedAtMs };
  await keys.write(BUNDLE_NAME, new TextEncoder().encode(JSON.stringify(document)));
}

/**
 * What to trust the server by: the bundle saved at the last sync, or the operator's file where that is newer (the way to bring
 * back an agent that slept through a change of authorities). Errors: `file-missing`, `config-invalid`.
 */
export async function loadAuthorities(
  keys: KeyStore,
  file: string,
  trustDomain: TrustDomain,
): Promise<TrustedAuthorities> {
  const saved = await savedAuthorities(keys);
  const changed = await stat(file).catch(() => null);
  if (saved !== null && (changed === null || changed.mtimeMs <= saved.savedAtMs)) {
    return saved;
  }
  return { authorities: await readTrustBundle(file, trustDomain), savedAtMs: changed?.mtimeMs ?? 0 };
}

/** Those of the last sync; null where there was none. */
export async function savedAuthorities(keys: KeyStore): Promise<TrustedAuthorities | null> {
  const stored = (await readJson(keys, BUNDLE_NAME)) as { authorities?: unknown; savedAtMs?: unknown } | null;
  return stored !== null &&
    isBase64List(stored.authorities) &&
    stored.authorities.length > 0 &&
    typeof stored.savedAtMs === "number"
    ? { authorities: stored.authorities.map(fromBase64), savedAtMs: stored.savedAtMs }
    : null;
}

/** The authorities in a file, PEM or SPIFFE's JSON. Errors: `file-missing`, `config-invalid`. */
async function readTrustBundle(file: string, trustDomain: TrustDomain): Promise<readonly Uint8Array[]> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read the trust bundle \`${file}\`: ${(error as Error).message}`, {
      hint: "`everyhop bundle show --format pem` on the server writes it",
      cause: error,
    });
  }
  return authoritiesOfText(text, file, trustDomain);
}

/** Errors: `config-invalid`, with `name` as where it stands. */
export function authoritiesOfText(text: string, name: string, trustDomain: TrustDomain): readonly Uint8Array[] {
  try {
    const isJson = text.trimStart().startsWith("{");
    const authorities = isJson ? parseBundle(trustDomain, text).x509Authorities : certificatesFromPem(text);
    authorities.forEach(parseCertificate);
    if (authorities.length === 0) {
      throw new Error("it has no certificates");
    }
    return authorities;
  } catch (error) {
    throw new EveryhopError("config-invalid", `\`${name}\` is no trust bundle: ${(error as Error).message}`, {
      hint: "it has to hold the server's CA certificates: `everyhop bundle show --format pem`, or `--format spiffe`",
      cause: error,
    });
  }
}

async function readJson(keys: KeyStore, name: string): Promise<object | null> {
  const bytes = await keys.read(name);
  if (bytes === null) {
    return null;
  }
  try {
    const document: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof document === "object" && document !== null) {
      return document;
    }
  } catch {
    // Said below.
  }
  throw damaged(name);
}

function damaged(name: string): EveryhopError {
  return new EveryhopError("storage-failed", `\`${name}\` in the agent's data folder is damaged`, {
    hint: "remove it and start the agent with a new join token",
  });
}

function isBase64List(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");
const fromBase64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
