/** x509pop, the node's half: the certificate, and signatures by its key. */
import { constants, createPrivateKey, type KeyObject, randomBytes, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { certificatesFromPem } from "../../../../core/x509/pem.ts";
import {
  bytesField,
  encodeBytes,
  joinNonces,
  NONCE_BYTES,
  objectField,
  readPayload,
  writePayload,
} from "../payload.ts";
import type { MakeProof } from "../proof.ts";

export interface X509PopFiles {
  readonly certificateFile: string;
  readonly privateKeyFile: string;
  readonly intermediatesFile?: string;
}

/** Reads the files anew at each attempt. Errors: `file-missing`, `config-invalid`. */
export function x509popProof(files: X509PopFiles): MakeProof {
  return async () => {
    const { certificateFile, privateKeyFile, intermediatesFile } = files;
    const chain = [
      ...certificatesFromPem(await readText(certificateFile)),
      ...(intermediatesFile === undefined ? [] : certificatesFromPem(await readText(intermediatesFile))),
    ];
    const key = privateKey(await readText(privateKeyFile), privateKeyFile);
    return {
      type: "x509pop",
      payload: writePayload({ certificates: chain.map(encodeBytes) }),
      answer: async (challenge) => answer(key, challenge),
    };
  };
}

function answer(key: KeyObject, bytes: Uint8Array): Uint8Array {
  const challenge = readPayload(bytes, "challenge");
  const nonce = randomBytes(NONCE_BYTES);
  const message = (field: string) => joinNonces(bytesField(objectField(challenge, field), "nonce"), nonce);
  if (key.asymmetricKeyType === "rsa") {
    const pss = {
      key,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: constants.RSA_PSS_SALTLEN_MAX_SIGN,
    };
    const signature = sign("sha256", message("rsa_signature"), pss);
    return writePayload({ rsa_signature: { nonce: encodeBytes(nonce), signature: encodeBytes(signature) } });
  }
  const both = sign("sha256", message("ecdsa_signature"), { key, dsaEncoding: "ieee-p1363" });
  const [r, s] = [both.subarray(0, both.length / 2), both.subarray(both.length / 2)];
  return writePayload({ ecdsa_signature: { nonce: encodeBytes(nonce), r: encodeBytes(r), s: encodeBytes(s) } });
}

function privateKey(pem: string, file: string): KeyObject {
  try {
    const key = createPrivateKey(pem);
    if (key.asymmetricKeyType === "rsa" || key.asymmetricKeyType === "ec") {
      return key;
    }
  } catch (cause) {
    throw new EveryhopError("config-invalid", `\`${file}\` is no private key in PEM`, { cause });
  }
  throw new EveryhopError("config-invalid", `the key in \`${file}\` is neither RSA nor EC`);
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, {
      hint: "`nodeAttestor` names the files that the node proves itself with",
      cause,
    });
  }
}
