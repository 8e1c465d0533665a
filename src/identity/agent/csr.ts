import { createPublicKey, generateKeyPair, sign } from "node:crypto";
import { promisify } from "node:util";
import { buildCsr } from "../../core/x509/csr-build.ts";

export interface NewKey {
  /** PKCS#8. */
  readonly keyDer: Uint8Array;
  /** Asks for nothing but a certificate of this key: names come from the registration entry. */
  readonly csr: Uint8Array;
}

const generate = promisify(generateKeyPair);

/** A new P-256 key and the request that goes with it. */
export async function newKey(): Promise<NewKey> {
  const { privateKey } = await generate("ec", { namedCurve: "P-256" });
  const spki = createPublicKey(privateKey).export({ format: "der", type: "spki" });
  const csr = buildCsr({ spki, algorithm: "ecdsa-sha256" }, (info) => sign("sha256", info, privateKey));
  return { keyDer: privateKey.export({ format: "der", type: "pkcs8" }), csr };
}
