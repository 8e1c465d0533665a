/** What the server may ask the signer to sign. The signer builds the bytes; nothing here is bytes to be signed. */
import type { KeyType } from "./key-type.ts";

export interface LeafIntent {
  readonly kind: "x509-svid";
  /** Which key signs: subjectKeyIdentifier in hex. */
  readonly authorityId: string;
  /** Lower-case hex, 16 octets. */
  readonly serial: string;
  readonly spki: Uint8Array;
  readonly spiffeId: string;
  readonly dnsNames: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** A CA of the trust domain: self-signed where `spki` is the signing key's own, else one below it. */
export interface CaIntent {
  readonly kind: "x509-ca";
  readonly authorityId: string;
  readonly serial: string;
  readonly spki: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** A request to an upstream authority to certify a CA key. */
export interface RequestIntent {
  readonly kind: "x509-csr";
  readonly authorityId: string;
  readonly serial: string;
}

export interface TokenIntent {
  readonly kind: "jwt-svid";
  /** `kid`. */
  readonly authorityId: string;
  /** Names it in journal and log, and is its `jti` where it has one. */
  readonly serial: string;
  readonly spiffeId: string;
  readonly audiences: readonly string[];
  /** Null: no `iss`. */
  readonly issuer: string | null;
  readonly includeJwtId: boolean;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export type Intent = LeafIntent | CaIntent | RequestIntent | TokenIntent;

/** The right to one signature over bytes that the signer built and linted. */
export interface Permit {
  /** 16 random octets in hex; worth one signature, for a minute. */
  readonly token: string;
  /** SHA-256 of the bytes that will be signed, lower-case hex: what the journal notes before. */
  readonly digest: string;
}

/** A key that the signer holds. */
export interface HeldKey {
  readonly use: KeyUse;
  /** Of a CA the subjectKeyIdentifier, of a JWT key its `kid`. */
  readonly id: string;
  readonly type: KeyType;
  readonly spki: Uint8Array;
  /** The CA's certificate and those above it, root left out unless it is its own; empty where none was adopted. */
  readonly chain: readonly Uint8Array[];
}

export type KeyUse = "x509" | "jwt";

/** What the signer refuses to go beyond, whatever the server asks. */
export interface Ceilings {
  readonly maxX509SvidTtlMs: number;
  readonly maxJwtSvidTtlMs: number;
  readonly maxCaTtlMs: number;
  /** SVIDs a second, a burst of ten seconds' worth. */
  readonly maxPerSecond: number;
  /** Whether it certifies CAs of servers below. */
  readonly downstream: boolean;
}

export type KeyPlace =
  | { readonly kind: "disk"; readonly dir: string }
  | { readonly kind: "memory" }
  | {
      readonly kind: "pkcs11";
      /** Where the certificates lie; the keys are in the token. */
      readonly dir: string;
      readonly module: string;
      readonly tokenLabel: string;
      readonly pinFile: string;
    };

/** The first message, and the only one of its kind. */
export interface Setup {
  readonly trustDomain: string;
  readonly keys: KeyPlace;
  readonly logDir: string;
  readonly ceilings: Ceilings;
}

/** The answer to it. */
export interface SetUp {
  readonly keys: readonly HeldKey[];
  /** Whether keys survive the signer. */
  readonly durable: boolean;
  /** Octets of a half-written last record that were cut off the log: the signer had been killed. */
  readonly repairedBytes: number;
  readonly logRecords: number;
}
