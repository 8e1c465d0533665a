import type { KeyObject } from "node:crypto";
import { ALGORITHMS, isJwsAlgorithm, type JwsAlgorithm, signWith, verifyWith } from "./algorithm.ts";
import { decodeBase64Url, encodeBase64Url } from "./base64url.ts";
import { parseStrictJson } from "./json.ts";
import { isRecord, type Jwk, minimumSecret } from "./jwk.ts";

/** Why a token is not believed. Stable: they label metrics and logs. */
export type JwsFault =
  | "malformed"
  | "unsupported-header"
  | "algorithm-not-allowed"
  | "key-id-missing"
  | "unknown-key"
  | "ambiguous-key"
  | "bad-signature";

export interface RefusedJws<F extends string = JwsFault> {
  readonly ok: false;
  readonly reason: F;
  /** For operators; lower case; never holds the token. */
  readonly message: string;
}

export interface JwsHeader {
  readonly alg: JwsAlgorithm;
  readonly kid: string | null;
  readonly typ: string | null;
  /** All members as they came. */
  readonly members: Readonly<Record<string, unknown>>;
}

export interface VerifiedJws {
  readonly ok: true;
  readonly header: JwsHeader;
  readonly payload: Uint8Array;
  /** The key that verified it. */
  readonly key: Jwk;
}

/** A JWS taken apart; nothing of it is believed. */
export interface DecodedJws {
  readonly ok: true;
  readonly header: JwsHeader;
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
  readonly signingInput: Uint8Array;
}

export interface VerifyJwsOptions {
  /** What the caller allows; all else is refused before any key is looked at. */
  readonly algorithms: readonly JwsAlgorithm[];
  /** Refuses a token without `kid`. Default false. */
  readonly requireKid?: boolean;
}

const MAX_TOKEN_LENGTH = 65_536;
/** Without a `kid` every key that fits is tried; a large set must not buy many signature checks. */
const MAX_KEYS_TRIED = 16;

function refuse<F extends string>(reason: F, message: string): RefusedJws<F> {
  return { ok: false, reason, message };
}

/** Takes a compact JWS apart, strictly; `crit` is refused, since no extension is understood. SPEC: RFC 7515 §5.2, §7.1. */
export function decodeJws(token: string): DecodedJws | RefusedJws {
  const parts = token.length > MAX_TOKEN_LENGTH ? [] : token.split(".");
  const [head = "", body = "", tail = ""] = parts;
  if (parts.length !== 3) {
    return refuse("malformed", "not a compact JWS");
  }
  const headerBytes = decodeBase64Url(head);
  const payload = decodeBase64Url(body);
  const signature = decodeBase64Url(tail);
  if (headerBytes === null || payload === null || signature === null) {
    return refuse("malformed", "a part is not base64url");
  }
  const members = jsonObject(headerBytes);
  if (members === null) {
    return refuse("malformed", "the header is not a JSON object with distinct keys");
  }
  const header = readHeader(members);
  if ("ok" in header) {
    return header;
  }
  return { ok: true, header, payload, signature, signingInput: Buffer.from(`${head}.${body}`, "latin1") };
}

/** A JSON object in UTF-8 without doubled keys; null where it is none. */
export function jsonObject(bytes: Uint8Array): Readonly<Record<string, unknown>> | null {
  try {
    const value = parseStrictJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
    return isRecord(value) ? value : null;
  } catch {
    return null;
  }
}

function readHeader(members: Readonly<Record<string, unknown>>): JwsHeader | RefusedJws {
  const { alg, kid, typ } = members;
  if (Object.hasOwn(members, "crit")) {
    return refuse("unsupported-header", "the header has `crit`, and no extension is supported");
  }
  if (typeof alg !== "string" || !(kid === undefined || typeof kid === "string")) {
    return refuse("malformed", "`alg` or `kid` in the header is missing or not text");
  }
  if (!isJwsAlgorithm(alg)) {
    return refuse("algorithm-not-allowed", `algorithm \`${alg.slice(0, 32)}\` is not supported`);
  }
  // An empty name is none.
  return { alg, kid: kid || null, typ: typeof typ === "string" ? typ : null, members };
}

/**
 * Verifies a compact JWS with one of `keys`. The key is found by `kid`, or among keys without one; a `kid` that two keys
 * carry is refused. Keys embedded in or pointed to by the header are never used. Never throws.
 */
export function verifyJws(token: string, keys: readonly Jwk[], options: VerifyJwsOptions): VerifiedJws | RefusedJws {
  const decoded = decodeJws(token);
  if (!decoded.ok) {
    return decoded;
  }
  const { header, payload, signature, signingInput } = decoded;
  if (!options.algorithms.includes(header.alg)) {
    return refuse("algorithm-not-allowed", `algorithm \`${header.alg}\` is not allowed here`);
  }
  if (header.kid === null && options.requireKid === true) {
    return refuse("key-id-missing", "the header has no `kid`");
  }
  const candidates = candidatesFor(header, keys);
  if (candidates.length === 0) {
    return refuse("unknown-key", "no key fits the header");
  }
  if (candidates.length > (candidates[0]?.kid === header.kid && header.kid !== null ? 1 : MAX_KEYS_TRIED)) {
    return refuse("ambiguous-key", `${candidates.length} keys fit the header`);
  }
  const key = candidates.find((candidate) => verifyWith(header.alg, candidate.key, signingInput, signature));
  return key === undefined
    ? refuse("bad-signature", "the signature does not verify")
    : { ok: true, header, payload, key };
}

function candidatesFor(header: JwsHeader, keys: readonly Jwk[]): readonly Jwk[] {
  const named = header.kid === null ? keys : keys.filter((key) => key.kid === header.kid);
  return (named.length > 0 ? named : keys.filter((key) => key.kid === null)).filter((key) => fits(header.alg, key));
}

function fits(alg: JwsAlgorithm, key: Jwk): boolean {
  const { kty, crv } = ALGORITHMS[alg];
  return (
    key.kty === kty &&
    (crv === null || key.crv === crv) &&
    (key.alg === null || key.alg === alg) &&
    (key.use === null || key.use === "sig") &&
    (key.keyOps === null || key.keyOps.includes("verify")) &&
    (kty !== "oct" || (key.key.symmetricKeySize ?? 0) >= minimumSecret(alg))
  );
}

/** The bytes that a compact JWS signs. */
export function jwsSigningInput(header: Readonly<Record<string, unknown>>, payload: string): Uint8Array {
  return Buffer.from(`${encodeBase64Url(JSON.stringify(header))}.${encodeBase64Url(payload)}`, "latin1");
}

export function assembleJws(signingInput: Uint8Array, signature: Uint8Array): string {
  return `${Buffer.from(signingInput).toString("latin1")}.${encodeBase64Url(signature)}`;
}

/** Signs with a private key that fits `header.alg`. */
export function signJws(
  header: { readonly alg: JwsAlgorithm; readonly kid?: string; readonly typ?: string },
  payload: string,
  key: KeyObject,
): string {
  const input = jwsSigningInput(header, payload);
  return assembleJws(input, signWith(header.alg, key, input));
}
