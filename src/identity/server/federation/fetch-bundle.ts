import { EveryhopError, toEveryhopError } from "../../../core/base/errors.ts";
import { type Bundle, parseBundle } from "../../../core/spiffe/bundle.ts";
import { endpointUrlFault, isInside, type Relationship } from "../../../core/spiffe/federation.ts";
import type { SpiffeId, TrustDomain } from "../../../core/spiffe/id.ts";
import { verifyX509Svid, type X509BundleOf } from "../../../core/spiffe/x509-svid.ts";
import { type GetOptions, getOverTls } from "../../../io/https-get.ts";

export interface FetchOptions {
  /** The newest bundles that are stored: by these an `https_spiffe` endpoint is known. */
  readonly bundleOf: X509BundleOf;
  /** PEM of the authorities of the public web. */
  readonly webAuthorities: () => readonly string[];
  readonly now: () => number;
}

const TIMEOUT_MS = 10_000;
const MAX_BYTES = 4 * 1024 * 1024;
const MAX_REDIRECTS = 3;
const REDIRECTS = [301, 302, 303, 307, 308];

/**
 * Fetches another trust domain's bundle from its endpoint. Redirects are followed where they lead to a URL that is valid for the
 * profile, and never remembered. Errors: `unavailable`, `failed-precondition` where there is no bundle to know the endpoint by,
 * `invalid-argument` for what is no bundle. SPEC: SPIFFE_Federation §5.2.
 */
export async function fetchBundle(relationship: Relationship, options: FetchOptions): Promise<Bundle> {
  const { url, profile } = relationship;
  try {
    return await fetchFollowing(relationship, options);
  } catch (cause) {
    const { code, message } = toEveryhopError(cause);
    throw new EveryhopError(code, `the bundle endpoint \`${url}\`: ${message}`, { hint: HINTS[profile.kind], cause });
  }
}

const HINTS = {
  https_web:
    "its certificate has to be of the URL's host, and of an authority that this machine or `webCaFile` knows; or it is of the profile `https_spiffe`",
  https_spiffe:
    "it has to prove `endpointSpiffeId` by the bundle that is stored: if that is out of date, `everyhop bundle set` brings a new one",
} as const;

async function fetchFollowing(relationship: Relationship, options: FetchOptions): Promise<Bundle> {
  const { trustDomain } = relationship;
  let url = new URL(relationship.url);
  let fromOutside = false;
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const { status, location, body } = await getOverTls(url, {
      ...tlsOf(relationship, options, (address) => {
        // A stranger may send us on, but not to what only we can reach.
        const refused = hop > 0 && fromOutside && isInside(address);
        fromOutside ||= !isInside(address);
        return refused ? `the redirect to \`${url.host}\` leads inside our own network` : null;
      }),
      timeoutMs: TIMEOUT_MS,
      maxBytes: MAX_BYTES,
    });
    if (status === 200) {
      return parseBundle(trustDomain, utf8(body));
    }
    if (!REDIRECTS.includes(status) || location === null) {
      throw new EveryhopError("unavailable", `unexpected status ${status} fetching bundle`);
    }
    url = redirected(url, location);
  }
  throw new EveryhopError("unavailable", `more than ${MAX_REDIRECTS} redirects`);
}

function redirected(from: URL, location: string): URL {
  const to = URL.parse(location, from.href)?.href ?? location;
  const fault = endpointUrlFault(to);
  if (fault !== null) {
    throw new EveryhopError("unavailable", `refused a redirect to \`${to.slice(0, 256)}\`: ${fault}`);
  }
  return new URL(to);
}

function tlsOf(
  { profile }: Relationship,
  { bundleOf, webAuthorities, now }: FetchOptions,
  refuseAddress: (address: string) => string | null,
): Pick<GetOptions, "webAuthorities" | "accept"> {
  if (profile.kind === "https_web") {
    return { webAuthorities: webAuthorities(), accept: ({ address }) => refuseAddress(address) };
  }
  const { endpointSpiffeId } = profile;
  return {
    webAuthorities: null,
    accept: ({ chain, address }) => refuseAddress(address) ?? refuseServer(chain, endpointSpiffeId, bundleOf, now()),
  };
}

/** SPEC: SPIFFE_Federation §5.2.2: the server presents a valid X.509-SVID of exactly the endpoint's SPIFFE ID. */
function refuseServer(
  chain: readonly Uint8Array[],
  expected: SpiffeId,
  bundleOf: (trustDomain: TrustDomain) => ReturnType<X509BundleOf>,
  now: number,
): string | null {
  const verified = verifyX509Svid(chain, bundleOf, now);
  if (verified.ok) {
    return verified.id === expected ? null : `the endpoint proved to be \`${verified.id}\`, not \`${expected}\``;
  }
  if (verified.reason === "unknown-trust-domain") {
    return `can't perform SPIFFE Authentication: ${verified.message}`;
  }
  return `the endpoint's certificate proves nothing: ${verified.message}`;
}

function utf8(body: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch (cause) {
    throw new EveryhopError("invalid-argument", "malformed SPIFFE bundle: not UTF-8", { cause });
  }
}
