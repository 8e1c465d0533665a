/** Bundles as files and messages. */
import { readFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { EveryhopError } from "../core/base/errors.ts";
import { type Bundle, emptyBundle, parseBundle } from "../core/spiffe/bundle.ts";
import { parseTrustDomain } from "../core/spiffe/id.ts";
import { certificatesFromPem } from "../core/x509/pem.ts";
import { BundleSchema, type Bundle as Message } from "../gen/spire/api/types/bundle_pb.js";

export type Format = "pem" | "spiffe";
export const FORMATS = { pem: "pem", spiffe: "spiffe" } as const;

/** A bundle from a file, or from standard input. Errors: `file-missing`; `invalid-argument` for what is none. */
export function readBundleFile(trustDomain: string, path: string | undefined, format: Format = "pem"): Bundle {
  const text = readInput(path);
  return format === "spiffe"
    ? parseBundle(parseTrustDomain(trustDomain), text)
    : { ...emptyBundle(parseTrustDomain(trustDomain)), x509Authorities: certificatesFromPem(text) };
}

export function bundleMessage(bundle: Bundle): Message {
  return create(BundleSchema, {
    trustDomain: bundle.trustDomain,
    x509Authorities: bundle.x509Authorities.map((asn1) => ({ asn1 })),
    jwtAuthorities: bundle.jwtAuthorities.map(({ keyId, publicKey }) => ({ keyId, publicKey })),
    sequenceNumber: bundle.sequence,
    refreshHint: BigInt(Math.round((bundle.refreshHintMs ?? 0) / 1_000)),
  });
}

export function bundleOf(message: Message): Bundle {
  return {
    ...emptyBundle(parseTrustDomain(message.trustDomain)),
    x509Authorities: message.x509Authorities.map(({ asn1 }) => asn1),
    jwtAuthorities: message.jwtAuthorities.map(({ keyId, publicKey, expiresAt, tainted }) => ({
      keyId,
      publicKey,
      expiresAtMs: Number(expiresAt) * 1_000 || null,
      tainted,
    })),
    sequence: message.sequenceNumber,
    refreshHintMs: Number(message.refreshHint) * 1_000 || null,
  };
}

export function readInput(path: string | undefined): string {
  try {
    return readFileSync(path ?? 0, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read ${path === undefined ? "standard input" : `\`${path}\``}`, {
      hint: "name the file that holds it",
      cause: error,
    });
  }
}
