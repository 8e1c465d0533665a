import { contains, parseCidr, parseIp, unmapped } from "../base/cidr.ts";
import type { SpiffeId, TrustDomain } from "./id.ts";

/** How a bundle endpoint proves that it is the right one. SPEC: SPIFFE_Federation §5.2. */
export type EndpointProfile =
  /** By a certificate of the public web. §5.2.1. */
  | { readonly kind: "https_web" }
  /** By the X.509-SVID of exactly this ID. §5.2.2. */
  | { readonly kind: "https_spiffe"; readonly endpointSpiffeId: SpiffeId };

/**
 * That we take another trust domain's bundle from its endpoint: one way, and all of it said, nothing inferred.
 * SPEC: SPIFFE_Federation §3, §5.1.
 */
export interface Relationship {
  readonly trustDomain: TrustDomain;
  readonly url: string;
  readonly profile: EndpointProfile;
}

/** Why `text` is no URL of a bundle endpoint, in SPIRE's words, or null where it is one. SPEC: SPIFFE_Federation §5.2: https, no userinfo. */
export function endpointUrlFault(text: string): string | null {
  const url = URL.parse(text);
  if (url === null) {
    return "failed to parse bundle endpoint URL";
  }
  if (url.protocol !== "https:") {
    return "bundle endpoint URL must use the https scheme";
  }
  if (url.username !== "" || url.password !== "" || /^https:\/*[^/?#]*@/i.test(text)) {
    return "bundle endpoint URL must not contain user info";
  }
  return url.hostname === "" ? "bundle endpoint URL must specify the host" : null;
}

/** Where nothing is said. SPEC: SPIFFE_Federation §4.1. */
const DEFAULT_REFRESH_MS = 300_000;
/** A hint below this would make us a burden, one above would leave us with keys that were taken back long ago. */
export const MIN_REFRESH_MS = 60_000;
const MAX_REFRESH_MS = 86_400_000;

/** How long after a poll, good or failed, comes the next. */
export function refreshDelayMs(refreshHintMs: number | null, minMs = MIN_REFRESH_MS): number {
  return Math.min(Math.max(refreshHintMs ?? DEFAULT_REFRESH_MS, minMs), MAX_REFRESH_MS);
}

const INSIDE = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "::/127",
  "fc00::/7",
  "fe80::/10",
].map((block) => {
  const cidr = parseCidr(block);
  if (cidr === null) {
    throw new Error(block);
  }
  return cidr;
});

/** Whether an address is of the machine, the link or a private network: somewhere that a stranger's redirect must not lead. */
export function isInside(address: string): boolean {
  const ip = parseIp(address);
  return ip === null || INSIDE.some((block) => contains(block, unmapped(ip)));
}
