import { createPublicKey, generateKeyPair, type KeyObject, sign } from "node:crypto";
import { promisify } from "node:util";
import { algorithmIdentifier } from "../../core/x509/algorithm.ts";
import { TAG } from "../../core/x509/der.ts";
import { bitString, sequence, tlv } from "../../core/x509/der-write.ts";

export interface NewKey {
  /** PKCS#8. */
  readonly keyDer: Uint8Array;
  /** Asks for nothing but a certificate of this key: names come from the registration entry. SPEC: RFC 2986 §4. */
  readonly csr: Uint8Array;
}

const generate = promisify(generateKeyPair);
const VERSION_1 = tlv(TAG.integer, Uint8Array.of(0));
const EMPTY_NAME = sequence();
const NO_ATTRIBUTES = tlv(0xa0);

/** A new P-256 key and the request that goes with it. */
export async function newKey(): Promise<NewKey> {
  const { privateKey } = await generate("ec", { namedCurve: "P-256" });
  return { keyDer: privateKey.export({ format: "der", type: "pkcs8" }), csr: requestFor(privateKey) };
}

function requestFor(key: KeyObject): Uint8Array {
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  const info = sequence(VERSION_1, EMPTY_NAME, spki, NO_ATTRIBUTES);
  return sequence(info, algorithmIdentifier("ecdsa-sha256"), bitString(sign("sha256", info, key)));
}
