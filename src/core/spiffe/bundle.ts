import { createPublicKey, type KeyObject } from "node:crypto";
import { EveryhopError } from "../base/errors.ts";
import { parseStrictJson } from "../jose/json.ts";
import { exportJwk, isRecord, parseJwk } from "../jose/jwk.ts";
import { parseCertificate } from "../x509/certificate.ts";
import type { TrustDomain } from "./id.ts";

/** A key that JWT-SVIDs of a trust domain are verified with. */
export interface JwtAuthority {
  readonly keyId: string;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array;
  /** Milliseconds since the epoch; null where it is not known. */
  readonly expiresAtMs: number | null;
  readonly tainted: boolean;
}

/** The keys that a trust domain is believed by. INVARIANT: bundles of two trust domains are never merged. */
export interface Bundle {
  readonly trustDomain: TrustDomain;
  /** DER certificates. Not to be changed in place. */
  readonly x509Authorities: readonly Uint8Array[];
  /** subjectKeyIdentifiers (lower-case hex) of X.509 authorities that are no longer secure: what they signed is replaced at once. */
  readonly taintedX509KeyIds: readonly string[];
  readonly jwtAuthorities: readonly JwtAuthority[];
  /** Grows with every change. 64 bits on the wire. */
  readonly sequence: bigint;
  /** How often to look for changes; null where nothing is said. */
  readonly refreshHintMs: number | null;
}

export function emptyBundle(trustDomain: TrustDomain): Bundle {
  return {
    trustDomain,
    x509Authorities: [],
    taintedX509KeyIds: [],
    jwtAuthorities: [],
    sequence: 0n,
    refreshHintMs: null,
  };
}

const MAX_BUNDLE_BYTES = 4 * 1024 * 1024;
const MAX_KEYS = 1024;

function bundleError(what: string): EveryhopError {
  return new EveryhopError("invalid-argument", `malformed SPIFFE bundle: ${what}`);
}

/**
 * Parses a bundle in SPIFFE's JSON. Keys of an unknown `use` or `kty` are passed over; a `jwt-svid` key without `kid` and an
 * `x509-svid` key whose certificate does not parse are refused rather than dropped, since a bundle that lost a key without
 * a word is the hardest outage to find. Errors: `invalid-argument`. SPEC: SPIFFE_Trust_Domain_and_Bundle §4.
 */
export function parseBundle(trustDomain: TrustDomain, json: string): Bundle {
  if (json.length > MAX_BUNDLE_BYTES) {
    throw bundleError("too large");
  }
  const document = parseStrictJson(json, { bigint: true });
  if (!isRecord(document) || !Array.isArray(document.keys) || document.keys.length > MAX_KEYS) {
    throw bundleError("`keys` is missing, no list or too long");
  }
  const x509Authorities: Uint8Array[] = [];
  const jwtAuthorities: JwtAuthority[] = [];
  for (const key of document.keys) {
    if (!isRecord(key) || !["EC", "RSA", "OKP"].includes(String(key.kty))) {
      continue;
    }
    if (key.use === "x509-svid") {
      x509Authorities.push(...parseX509Authority(key));
    } else if (key.use === "jwt-svid") {
      jwtAuthorities.push(parseJwtAuthority(key, jwtAuthorities));
    }
  }
  return {
    trustDomain,
    x509Authorities,
    taintedX509KeyIds: [],
    jwtAuthorities,
    sequence: wholeNumber(document, "spiffe_sequence") ?? 0n,
    refreshHintMs: refreshHint(wholeNumber(document, "spiffe_refresh_hint")),
  };
}

/** The first of `x5c`; nothing where there is none. SPEC: §4.2.1. */
function parseX509Authority(key: Readonly<Record<string, unknown>>): Uint8Array[] {
  const x5c = key.x5c;
  if (!Array.isArray(x5c) || x5c.length === 0) {
    return [];
  }
  const text: unknown = x5c[0];
  const der = typeof text === "string" ? Buffer.from(text, "base64") : null;
  if (der === null || der.toString("base64") !== text) {
    throw bundleError("`x5c` is not base64");
  }
  parseCertificate(der);
  return [der];
}

function parseJwtAuthority(key: Readonly<Record<string, unknown>>, before: readonly JwtAuthority[]): JwtAuthority {
  const { kid } = key;
  if (typeof kid !== "string" || kid === "") {
    throw bundleError("a `jwt-svid` key has no `kid`");
  }
  if (before.some((authority) => authority.keyId === kid)) {
    throw bundleError(`two \`jwt-svid\` keys are named \`${kid.slice(0, 64)}\``);
  }
  const jwk = parseJwk({ ...key, use: undefined });
  const publicKey = jwk.key.export({ format: "der", type: "spki" });
  return { keyId: kid, publicKey, expiresAtMs: null, tainted: false };
}

function wholeNumber(document: Readonly<Record<string, unknown>>, name: string): bigint | null {
  const value = document[name];
  if (value === undefined) {
    return null;
  }
  if (!((typeof value === "number" && Number.isInteger(value)) || typeof value === "bigint") || value < 0) {
    throw bundleError(`\`${name}\` is not a whole number`);
  }
  if (value >= 2n ** 64n) {
    throw bundleError(`\`${name}\` is larger than 64 bits`);
  }
  return BigInt(value);
}

function refreshHint(seconds: bigint | null): number | null {
  return seconds === null || seconds === 0n ? null : Math.min(Number(seconds), 2 ** 31) * 1000;
}

/** Writes a bundle in SPIFFE's JSON, keys in the bundle's order. parse ∘ format gives the same bundle, taints left out. */
export function formatBundle(bundle: Bundle): string {
  const keys = [
    ...bundle.x509Authorities.map((der) => ({
      ...exportJwk(createPublicKey(spkiInput(parseCertificate(der).spki)), { use: "x509-svid" }),
      x5c: [Buffer.from(der).toString("base64")],
    })),
    ...jwtKeys(bundle, "jwt-svid"),
  ];
  const body = JSON.stringify({ keys }, null, 4).slice(0, -2);
  const hint =
    bundle.refreshHintMs === null ? "" : `,\n    "spiffe_refresh_hint": ${Math.round(bundle.refreshHintMs / 1000)}`;
  return `${body},\n    "spiffe_sequence": ${bundle.sequence}${hint}\n}`;
}

/** The JWT keys alone, without `use`: what the Workload API hands out. SPEC: JWT-SVID §4, Workload API §6.2. */
export function formatJwtBundle(bundle: Bundle): string {
  return JSON.stringify({ keys: jwtKeys(bundle) });
}

function jwtKeys(bundle: Bundle, use?: string): unknown[] {
  return bundle.jwtAuthorities.map(({ keyId, publicKey }) =>
    exportJwk(createPublicKey(spkiInput(publicKey)), use === undefined ? { kid: keyId } : { kid: keyId, use }),
  );
}

function spkiInput(spki: Uint8Array): { key: Buffer; format: "der"; type: "spki" } {
  return { key: Buffer.from(spki), format: "der", type: "spki" };
}

const keys = new WeakMap<JwtAuthority, KeyObject>();

/** HOT: the same few authorities verify every token. */
export function jwtAuthorityKey(authority: JwtAuthority): KeyObject {
  let key = keys.get(authority);
  if (key === undefined) {
    key = createPublicKey(spkiInput(authority.publicKey));
    keys.set(authority, key);
  }
  return key;
}
