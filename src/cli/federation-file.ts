/** `--data FILE` of `everyhop federation`: SPIRE's JSON. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { EveryhopError } from "../core/base/errors.ts";
import { isRecord } from "../core/jose/jwk.ts";
import { emptyBundle, parseBundle } from "../core/spiffe/bundle.ts";
import { parseTrustDomain } from "../core/spiffe/id.ts";
import { certificatesFromPem } from "../core/x509/pem.ts";
import type { FederationRelationshipSchema } from "../gen/spire/api/types/federationrelationship_pb.js";
import { bundleMessage, readInput } from "./bundle-file.ts";

/** A relationship as it is asked for. */
export type Draft = MessageInitShape<typeof FederationRelationshipSchema>;

export function profileOf(endpointSpiffeId: string | undefined): NonNullable<Draft["bundleEndpointProfile"]> {
  return endpointSpiffeId === undefined
    ? { case: "httpsWeb", value: {} }
    : { case: "httpsSpiffe", value: { endpointSpiffeId } };
}

/**
 * `{"federationRelationships": [{trustDomain, bundleEndpointURL, bundleEndpointProfile, endpointSPIFFEID,
 * trustDomainBundle, trustDomainBundleFormat}]}`; a bundle is PEM text, or SPIFFE's document as it is. Errors: `config-invalid`.
 */
export function readRelationships(path: string): readonly Draft[] {
  const document = parseJson(readInput(path === "-" ? undefined : path));
  const list = isRecord(document) ? document.federationRelationships : undefined;
  if (!Array.isArray(list)) {
    throw fault("`federationRelationships` is missing");
  }
  return list.map((item: unknown, index) => {
    try {
      return draftOf(item);
    } catch (error) {
      throw fault(`could not parse item ${index}: ${(error as Error).message}`);
    }
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw fault(`failed to parse JSON: ${(error as Error).message}`);
  }
}

function fault(message: string): EveryhopError {
  return new EveryhopError("config-invalid", message, {
    hint: '`{"federationRelationships":[{"trustDomain":"…","bundleEndpointURL":"…","bundleEndpointProfile":"https_web"}]}`',
  });
}

const FIELDS = [
  "trustDomain",
  "bundleEndpointURL",
  "bundleEndpointProfile",
  "endpointSPIFFEID",
  "trustDomainBundle",
  "trustDomainBundleFormat",
];

function draftOf(item: unknown): Draft {
  if (!isRecord(item)) {
    throw new Error("it is no object");
  }
  const unknown = Object.keys(item).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) {
    throw new Error(`\`${unknown}\` is not known`);
  }
  const name = text(item.trustDomain, "trust domain is required");
  const bundleEndpointUrl = text(item.bundleEndpointURL, "bundle endpoint URL is required");
  const { bundleEndpointProfile: profile } = item;
  if (profile !== "https_web" && profile !== "https_spiffe") {
    throw new Error(`unknown bundle endpoint profile type: ${JSON.stringify(profile)}`);
  }
  const id =
    profile === "https_web"
      ? undefined
      : text(item.endpointSPIFFEID, "endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set");
  return {
    trustDomain: name,
    bundleEndpointUrl,
    bundleEndpointProfile: profileOf(id),
    ...(item.trustDomainBundle === undefined ? {} : { trustDomainBundle: bundleMessage(bundleIn(item, name)) }),
  };
}

function bundleIn(
  { trustDomainBundle: given, trustDomainBundleFormat: format }: Record<string, unknown>,
  name: string,
) {
  const trustDomain = parseTrustDomain(name);
  if (format === "spiffe") {
    return parseBundle(trustDomain, JSON.stringify(given));
  }
  return {
    ...emptyBundle(trustDomain),
    x509Authorities: certificatesFromPem(text(given, "the bundle is no PEM text")),
  };
}

function text(value: unknown, otherwise: string): string {
  if (typeof value !== "string" || value === "") {
    throw new Error(otherwise);
  }
  return value;
}
