/** sshpop, the node's half: the host's certificate, and a signature by the host's key. */
import { createHash, type KeyObject, randomBytes, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { bytesField, encodeBytes, joinNonces, NONCE_BYTES, readPayload, writePayload } from "../payload.ts";
import type { MakeProof } from "../proof.ts";
import { blobOfLine, parseSshCertificate } from "./certificate.ts";
import { parseHostKey } from "./host-key.ts";
import { sshNumber } from "./wire.ts";

export interface SshPopFiles {
  readonly hostKeyFile?: string;
  readonly hostCertificateFile?: string;
}

/** SPEC: SPIRE, doc/plugin_agent_nodeattestor_sshpop.md. */
const DEFAULT_KEY = "/etc/ssh/ssh_host_rsa_key";
const DEFAULT_CERTIFICATE = "/etc/ssh/ssh_host_rsa_key-cert.pub";

/** Reads the files anew at each attempt. Errors: `file-missing`, `config-invalid`. */
export function sshpopProof(files: SshPopFiles): MakeProof {
  const { hostKeyFile = DEFAULT_KEY, hostCertificateFile = DEFAULT_CERTIFICATE } = files;
  return async () => {
    const bytes = blobOfLine(await readText(hostCertificateFile));
    const { type } = parseSshCertificate(bytes).key;
    const key = parseHostKey(await readText(hostKeyFile), hostKeyFile);
    return {
      type: "sshpop",
      payload: writePayload({ Certificate: encodeBytes(bytes) }),
      async answer(challenge) {
        const nonce = randomBytes(NONCE_BYTES);
        const both = joinNonces(bytesField(readPayload(challenge, "challenge"), "Nonce"), nonce);
        const { format, blob } = signSsh(type, key, createHash("sha256").update(both).digest());
        const Signature = { Format: format, Blob: encodeBytes(blob), Rest: null };
        return writePayload({ Nonce: encodeBytes(nonce), Signature });
      },
    };
  };
}

const EC_DIGESTS: Readonly<Record<string, string>> = {
  "ecdsa-sha2-nistp256": "sha256",
  "ecdsa-sha2-nistp384": "sha384",
  "ecdsa-sha2-nistp521": "sha512",
};

function signSsh(type: string, key: KeyObject, message: Uint8Array): { format: string; blob: Uint8Array } {
  if (type === "ssh-ed25519") {
    return { format: type, blob: sign(null, message, key) };
  }
  const digest = EC_DIGESTS[type];
  if (digest === undefined) {
    return { format: "rsa-sha2-512", blob: sign("sha512", message, key) };
  }
  const both = sign(digest, message, { key, dsaEncoding: "ieee-p1363" });
  const half = both.length / 2;
  return { format: type, blob: Buffer.concat([sshNumber(both.subarray(0, half)), sshNumber(both.subarray(half))]) };
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, {
      hint: "`nodeAttestor` names the host's key and certificate",
      cause,
    });
  }
}
