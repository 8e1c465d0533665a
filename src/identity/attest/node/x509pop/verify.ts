/** x509pop: a node proves that it holds the key of a certificate of a PKI we trust. SPEC: SPIRE, doc/plugin_server_nodeattestor_x509pop.md. */
import { constants, createHash, type KeyObject, randomBytes, verify } from "node:crypto";
import { parseIp, unmapped } from "../../../../core/base/cidr.ts";
import { EveryhopError } from "../../../../core/base/errors.ts";
import type { TrustDomain } from "../../../../core/spiffe/id.ts";
import { keyFault, publicKeyFromSpki } from "../../../../core/x509/algorithm.ts";
import { type Certificate, parseCertificate } from "../../../../core/x509/certificate.ts";
import { validatePath } from "../../../../core/x509/path.ts";
import { type PathTemplate, parsePathTemplate } from "../agent-path.ts";
import {
  bytesField,
  decodeBytes,
  encodeBytes,
  joinNonces,
  NONCE_BYTES,
  objectField,
  type Payload,
  readPayload,
  writePayload,
} from "../payload.ts";
import type { Attempt, NodeVerifier, ProvenNode } from "../proof.ts";

export interface X509PopOptions {
  /** `spiffe`: the certificate is an X.509-SVID of our own trust domain, under `svidPrefix`. */
  readonly mode?: "external_pki" | "spiffe";
  readonly svidPrefix?: string;
  readonly agentPathTemplate?: string;
  readonly maxIntermediates?: number;
  /** The certificate has to carry the address that the node comes from. */
  readonly verifyClientIp?: boolean;
  /** DER, of the PKI; in mode `spiffe` our own. */
  readonly authorities: () => readonly Uint8Array[];
}

/** SPEC: SPIRE 1.14.2: bounds on what a chain can cost before anything is proven. */
const MAX_INTERMEDIATES = 4;
const NAMES = ["PluginName", "Fingerprint", "SerialNumberHex", "Subject.CommonName", "TrustDomain", "SVIDPathTrimmed"];

export function x509popVerifier(options: X509PopOptions): NodeVerifier {
  const { mode = "external_pki", agentPathTemplate } = options;
  const standard =
    mode === "spiffe" ? "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}" : "/{{ .PluginName }}/{{ .Fingerprint }}";
  const template = parsePathTemplate(agentPathTemplate ?? standard, NAMES);
  return {
    type: "x509pop",
    async verify(payload, attempt) {
      const chain = readChain(
        readPayload(payload, "attestation payload"),
        options.maxIntermediates ?? MAX_INTERMEDIATES,
      );
      const [leaf] = chain as [Certificate];
      const validated = validatePath(chain, options.authorities(), attempt.now, { keyUsageRequired: false });
      if (!validated.ok) {
        throw new EveryhopError("permission-denied", `certificate verification failed: ${validated.message}`);
      }
      if (options.verifyClientIp === true) {
        checkAddress(leaf, attempt.address);
      }
      await challenge(leaf, attempt);
      return proven(leaf, validated.path.slice(1), { template, options, attempt });
    },
  };
}

/** INVARIANT: the number and size of what is sent is checked before any of it is looked at closely. */
function readChain(payload: Payload, maxIntermediates: number): readonly Certificate[] {
  const { certificates } = payload;
  if (!Array.isArray(certificates) || certificates.length === 0) {
    throw new EveryhopError("invalid-argument", "no certificate to attest");
  }
  if (certificates.length - 1 > maxIntermediates) {
    throw new EveryhopError("invalid-argument", "too many intermediate certificates");
  }
  return certificates.map((text, index) => {
    const certificate = parseCertificate(decodeBytes(text, `certificates[${index}]`));
    const fault = keyFault(certificate.publicKey.key);
    if (fault !== null) {
      throw new EveryhopError("invalid-argument", `certificate ${index}: ${fault}`);
    }
    return certificate;
  });
}

function checkAddress(leaf: Certificate, address: string): void {
  const from = parseIp(address);
  const wanted = from === null ? "" : unmapped(from).words.join();
  const named = (leaf.names?.ipAddresses ?? []).map((octets) => {
    const view = new DataView(octets.buffer, octets.byteOffset, octets.length);
    return Array.from({ length: octets.length / 4 }, (_, index) => view.getUint32(index * 4)).join();
  });
  if (!named.includes(wanted)) {
    throw new EveryhopError("permission-denied", "the node's address is not in its certificate");
  }
}

async function challenge(leaf: Certificate, attempt: Attempt): Promise<void> {
  const { key } = leaf.publicKey;
  if (leaf.keyUsage?.includes("digitalSignature") !== true) {
    throw new EveryhopError("invalid-argument", "certificate not intended for digital signature use");
  }
  if (key.kind !== "rsa" && key.kind !== "ec") {
    throw new EveryhopError("invalid-argument", `unsupported public key type ${key.kind}`);
  }
  const field = key.kind === "rsa" ? "rsa_signature" : "ecdsa_signature";
  const nonce = randomBytes(NONCE_BYTES);
  const answer = await attempt.challenge(writePayload({ [field]: { nonce: encodeBytes(nonce) } }));
  const response = objectField(readPayload(answer, "challenge response"), field);
  const message = joinNonces(nonce, bytesField(response, "nonce"));
  const publicKey = publicKeyFromSpki(leaf.spki);
  const good =
    key.kind === "rsa" ? verifyRsa(publicKey, message, response) : verifyEc(publicKey, key.curve, message, response);
  if (!good) {
    throw new EveryhopError("permission-denied", "challenge response verification failed");
  }
}

/** What Go calls the digest is the SHA-256 of both nonces: for us the message is the nonces, and the hash SHA-256. */
function verifyRsa(key: KeyObject, message: Uint8Array, response: Payload): boolean {
  const pss = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO };
  return verify("sha256", message, pss, bytesField(response, "signature"));
}

const COORDINATE_BYTES: Readonly<Record<string, number>> = { "P-256": 32, "P-384": 48, "P-521": 66 };

function verifyEc(key: KeyObject, curve: string, message: Uint8Array, response: Payload): boolean {
  const size = COORDINATE_BYTES[curve] ?? 0;
  const halves = ["r", "s"].map((name) => {
    const value = Buffer.from(bytesField(response, name));
    const first = value.findIndex((octet) => octet !== 0);
    return value.subarray(first < 0 ? value.length : first);
  });
  if (size === 0 || halves.some((half) => half.length > size || half.length === 0)) {
    return false;
  }
  const signature = Buffer.concat(halves.flatMap((half) => [Buffer.alloc(size - half.length), half]));
  return verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, signature);
}

interface Found {
  readonly template: PathTemplate;
  readonly options: X509PopOptions;
  readonly attempt: Attempt;
}

function proven(leaf: Certificate, issuers: readonly Certificate[], { template, options, attempt }: Found): ProvenNode {
  const { trustDomain } = attempt;
  const commonName = leaf.subject.attributes.find(({ type }) => type === "CN")?.value ?? "";
  const data = {
    PluginName: "x509pop",
    Fingerprint: fingerprint(leaf),
    SerialNumberHex: leaf.serial,
    "Subject.CommonName": commonName,
    TrustDomain: trustDomain,
    SVIDPathTrimmed: options.mode === "spiffe" ? svidPath(leaf, trustDomain, options.svidPrefix) : "",
  };
  return {
    path: template.path(data, trustDomain),
    selectors: [
      ...(commonName === "" ? [] : [`x509pop:subject:cn:${commonName}`]),
      ...issuers.map((issuer) => `x509pop:ca:fingerprint:${fingerprint(issuer)}`),
      `x509pop:serialnumber:${leaf.serial}`,
      ...sanSelectors(leaf, trustDomain),
    ],
    reattestable: true,
  };
}

/** SPEC: SPIRE: SHA-1 of the certificate. It names it; nothing rests on it. */
function fingerprint(certificate: Certificate): string {
  return createHash("sha1").update(certificate.der).digest("hex");
}

function svidPath(leaf: Certificate, trustDomain: TrustDomain, prefix = "/spire-exchange/"): string {
  const start = `spiffe://${trustDomain}${prefix.endsWith("/") ? prefix : `${prefix}/`}`;
  const uris = leaf.names?.uris ?? [];
  const [uri = ""] = uris;
  // An X.509-SVID has exactly one URI: with more of them it is none, and says nothing.
  if (uris.length !== 1 || !uri.startsWith(start)) {
    throw new EveryhopError("permission-denied", "the certificate is no X.509-SVID under the prefix for nodes");
  }
  return uri.slice(start.length);
}

/** URIs `x509pop://<trust domain>/<key>/<value>` become `san:<key>:<value>`. */
function sanSelectors(leaf: Certificate, trustDomain: TrustDomain): string[] {
  const prefix = `x509pop://${trustDomain}/`;
  return (leaf.names?.uris ?? []).flatMap((uri) => {
    const rest = uri.startsWith(prefix) ? uri.slice(prefix.length) : "";
    const slash = rest.indexOf("/");
    return slash > 0 && slash < rest.length - 1 ? [`x509pop:san:${rest.slice(0, slash)}:${rest.slice(slash + 1)}`] : [];
  });
}
