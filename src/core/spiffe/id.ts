import { EveryhopError } from "../base/errors.ts";

declare const spiffeId: unique symbol;
declare const trustDomain: unique symbol;

/** A SPIFFE ID that was parsed: `spiffe://<trust domain>[/<path>]`. SPEC: SPIFFE-ID §2. */
export type SpiffeId = string & { readonly [spiffeId]: true };
/** A trust domain's name that was parsed, without the scheme. SPEC: SPIFFE-ID §2.1. */
export type TrustDomain = string & { readonly [trustDomain]: true };

const SCHEME = "spiffe://";
/** SPEC: SPIFFE-ID §2.3: implementations must support IDs up to this many bytes. */
const MAX_ID_BYTES = 2048;
const MAX_TRUST_DOMAIN_BYTES = 255;

/**
 * Why `text` is no SPIFFE ID, or null where it is one. Scheme and trust domain must be lower case as given: §2.4 would let
 * a parser fold them, but two spellings of one identity are what a policy bypass is made of (go-spiffe is as strict).
 */
export function spiffeIdFault(text: string): string | null {
  if (text === "") {
    return "cannot be empty";
  }
  if (!text.startsWith(SCHEME)) {
    return "scheme is missing or invalid";
  }
  if (text.length > MAX_ID_BYTES) {
    return `is longer than ${MAX_ID_BYTES} bytes`;
  }
  const slash = text.indexOf("/", SCHEME.length);
  const domain = slash < 0 ? text.slice(SCHEME.length) : text.slice(SCHEME.length, slash);
  return trustDomainFault(domain) ?? (slash < 0 ? null : pathFault(text.slice(slash)));
}

export function trustDomainFault(name: string): string | null {
  if (name === "") {
    return "trust domain is missing";
  }
  if (name.length > MAX_TRUST_DOMAIN_BYTES) {
    return `trust domain is longer than ${MAX_TRUST_DOMAIN_BYTES} bytes`;
  }
  return /^[a-z0-9._-]+$/.test(name)
    ? null
    : "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores";
}

function pathFault(path: string): string | null {
  for (const segment of path.slice(1).split("/")) {
    if (segment === "") {
      return path.endsWith("/") ? "path cannot have a trailing slash" : "path cannot contain empty segments";
    }
    if (segment === "." || segment === "..") {
      return "path cannot contain dot segments";
    }
    if (!/^[a-zA-Z0-9._-]+$/.test(segment)) {
      return "path segment characters are limited to letters, numbers, dots, dashes, and underscores";
    }
  }
  return null;
}

/** Parses a SPIFFE ID. Errors: `invalid-argument`, saying which rule is broken. */
export function parseSpiffeId(text: string): SpiffeId {
  const fault = spiffeIdFault(text);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `\`${text}\` is not a SPIFFE ID: ${fault}`, {
      hint: "write it as `spiffe://example.com/ns/NAMESPACE/sa/ACCOUNT`",
    });
  }
  return text as SpiffeId;
}

/** Parses a trust domain's name (`example.com`; also taken as `spiffe://example.com`). */
export function parseTrustDomain(text: string): TrustDomain {
  const name = text.startsWith(SCHEME) ? text.slice(SCHEME.length) : text;
  const fault = trustDomainFault(name);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `\`${text}\` is not a trust domain: ${fault}`);
  }
  return name as TrustDomain;
}

export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf("/", SCHEME.length);
  return (slash < 0 ? id.slice(SCHEME.length) : id.slice(SCHEME.length, slash)) as TrustDomain;
}

/** The path with its leading slash; empty for the trust domain's own ID. */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf("/", SCHEME.length);
  return slash < 0 ? "" : id.slice(slash);
}

export function makeSpiffeId(domain: TrustDomain, path: string): SpiffeId {
  return parseSpiffeId(`${SCHEME}${domain}${path}`);
}

/** The ID a workload has by default, as Istio forms it. */
export function workloadId(domain: TrustDomain, namespace: string, serviceAccount: string): SpiffeId {
  return makeSpiffeId(domain, `/ns/${namespace}/sa/${serviceAccount}`);
}

/** Istio's spelling of an identity: without the scheme. */
export function principalOf(id: SpiffeId): string {
  return id.slice(SCHEME.length);
}

/** The server's own identity; SPIRE's agents expect exactly this. */
export function serverId(domain: TrustDomain): SpiffeId {
  return makeSpiffeId(domain, "/spire/server");
}

/** The identity of every sidecar: it opens the control plane and the agent's broker endpoint, and nothing else. */
export function sidecarId(domain: TrustDomain): SpiffeId {
  return makeSpiffeId(domain, "/everyhop/sidecar");
}
