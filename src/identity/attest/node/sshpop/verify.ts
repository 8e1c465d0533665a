/** sshpop: a node proves that it holds the key of an SSH host certificate. SPEC: SPIRE, doc/plugin_server_nodeattestor_sshpop.md. */
import { createHash, randomBytes } from "node:crypto";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { parsePathTemplate } from "../agent-path.ts";
import {
  bytesField,
  encodeBytes,
  joinNonces,
  NONCE_BYTES,
  objectField,
  readPayload,
  textField,
  writePayload,
} from "../payload.ts";
import type { Attempt, NodeVerifier } from "../proof.ts";
import { blobOfLine, checkHostCertificate, parseSshCertificate, type SshCertificate } from "./certificate.ts";
import { readPublicKey, verifySsh } from "./wire.ts";

export interface SshPopOptions {
  /** Lines as in authorized_keys. */
  readonly certAuthorities: readonly string[];
  /** Taken off the host's name; a host outside of it is refused. */
  readonly canonicalDomain?: string;
  readonly agentPathTemplate?: string;
}

const NAMES = ["PluginName", "Fingerprint", "Hostname", "Serial", "KeyId"];

/** Errors: `config-invalid`. */
export function sshpopVerifier(options: SshPopOptions): NodeVerifier {
  const template = parsePathTemplate(options.agentPathTemplate ?? "/{{ .PluginName }}/{{ .Fingerprint }}", NAMES);
  const authorities = options.certAuthorities.map(blobOfLine);
  if (authorities.length === 0) {
    throw new EveryhopError("config-invalid", "sshpop has no `certAuthorities`, nor `certAuthoritiesFile`");
  }
  authorities.forEach(readPublicKey);
  return {
    type: "sshpop",
    async verify(bytes, attempt) {
      const certificate = parseSshCertificate(bytesField(readPayload(bytes, "attestation payload"), "Certificate"));
      const host = withoutDomain(checkHostCertificate(certificate, authorities, attempt.now), options.canonicalDomain);
      await challenge(certificate, attempt);
      const data = {
        PluginName: "sshpop",
        Fingerprint: createHash("sha256").update(certificate.bytes).digest("base64url"),
        Hostname: host,
        Serial: certificate.serial.toString(),
        KeyId: certificate.keyId,
      };
      return { path: template.path(data, attempt.trustDomain), selectors: [], reattestable: true };
    },
  };
}

function withoutDomain(host: string, domain: string | undefined): string {
  if (domain === undefined || domain === "") {
    return host;
  }
  if (!host.endsWith(`.${domain}`)) {
    throw new EveryhopError("permission-denied", `cert principal is not in domain \`.${domain}\``);
  }
  return host.slice(0, -domain.length - 1);
}

async function challenge(certificate: SshCertificate, attempt: Attempt): Promise<void> {
  const nonce = randomBytes(NONCE_BYTES);
  const answer = readPayload(
    await attempt.challenge(writePayload({ Nonce: encodeBytes(nonce) })),
    "challenge response",
  );
  const signature = objectField(answer, "Signature");
  // SPEC: SPIRE: the SHA-256 of both nonces is the message here; the signature hashes it again.
  const message = createHash("sha256")
    .update(joinNonces(nonce, bytesField(answer, "Nonce")))
    .digest();
  const given = { format: textField(signature, "Format"), blob: bytesField(signature, "Blob") };
  if (!verifySsh(certificate.key, message, given, { sha1: true })) {
    throw new EveryhopError("permission-denied", "failed to verify signature");
  }
}
