/** `federation:` in the server's configuration. */
import { resolve } from "node:path";
import type { Issue } from "../core/base/errors.ts";
import { duration, object, oneOf, optional, record, refined, required, string } from "../core/base/validate.ts";
import type { YamlDocument } from "../core/base/yaml.ts";
import { type EndpointProfile, endpointUrlFault } from "../core/spiffe/federation.ts";
import { type SpiffeId, spiffeIdFault, type TrustDomain, trustDomainFault } from "../core/spiffe/id.ts";
import type {
  BundleEndpointConfig,
  ConfiguredRelationship,
  FederationConfig,
} from "../identity/server/federation/federation.ts";
import { type Address, address } from "./address.ts";

const PROFILES = ["https_web", "https_spiffe"] as const;
const file = string({ what: "a path" });
const url = refined(string({ what: "the URL of a bundle endpoint" }), (text, at) => {
  const fault = endpointUrlFault(text);
  return fault === null ? text : at.fault(fault, "write it as `https://bundles.other.org:8443/`");
});
const spiffeId = refined(string({ what: "a SPIFFE ID" }), (text, at) => {
  const fault = spiffeIdFault(text);
  return fault === null ? (text as SpiffeId) : at.fault(`\`${text}\`: ${fault}`);
});

export const federationShape = object({
  bundleEndpoint: optional(
    object({
      listen: optional(address()),
      profile: optional(oneOf(...PROFILES)),
      certFile: optional(file),
      keyFile: optional(file),
      refreshHint: optional(duration(1_000)),
    }),
  ),
  federatesWith: optional(
    record(
      object({
        url: required(url),
        profile: required(oneOf(...PROFILES)),
        endpointSpiffeId: optional(spiffeId),
        bundleFile: optional(file),
      }),
    ),
  ),
  webCaFile: optional(file),
});

type Given = NonNullable<ReturnType<typeof federationShape.read>>;

const DEFAULT_LISTEN: Address = { host: "127.0.0.1", port: 8_443 };

/** Paths become absolute. What `federationFaults` finds must be none. */
export function federationConfig(given: Given | undefined, dir: string): FederationConfig | null {
  if (given === undefined) {
    return null;
  }
  const { bundleEndpoint, federatesWith = {}, webCaFile } = given;
  return {
    ...(bundleEndpoint === undefined ? {} : { bundleEndpoint: endpointConfig(bundleEndpoint, dir) }),
    federatesWith: Object.entries(federatesWith).map(
      ([name, one]): ConfiguredRelationship => ({
        trustDomain: name as TrustDomain,
        url: one.url,
        profile: profileOf(one.profile, one.endpointSpiffeId),
        ...(one.bundleFile === undefined ? {} : { bundleFile: resolve(dir, one.bundleFile) }),
      }),
    ),
    ...(webCaFile === undefined ? {} : { webCaFile: resolve(dir, webCaFile) }),
  };
}

function endpointConfig(given: NonNullable<Given["bundleEndpoint"]>, dir: string): BundleEndpointConfig {
  const { listen = DEFAULT_LISTEN, profile = "https_spiffe", certFile = "", keyFile = "", refreshHint } = given;
  return {
    listen,
    profile:
      profile === "https_web"
        ? { kind: profile, certFile: resolve(dir, certFile), keyFile: resolve(dir, keyFile) }
        : { kind: profile },
    ...(refreshHint === undefined ? {} : { refreshHintMs: refreshHint }),
  };
}

function profileOf(kind: (typeof PROFILES)[number], endpointSpiffeId: SpiffeId | undefined): EndpointProfile {
  return kind === "https_spiffe" && endpointSpiffeId !== undefined ? { kind, endpointSpiffeId } : { kind: "https_web" };
}

/** What the members say together, and the shape of each cannot know. */
export function federationFaults(given: Given | undefined, own: TrustDomain, document: YamlDocument): Issue[] {
  const issues: Issue[] = [];
  const fault = (path: readonly string[], message: string, hint: string): void => {
    const place = document.place(["federation", ...path]);
    issues.push({ code: "config-invalid", severity: "error", message, hint, ...place });
  };
  const { profile, certFile, keyFile } = given?.bundleEndpoint ?? {};
  if (profile === "https_web" && (certFile === undefined || keyFile === undefined)) {
    const hint = "name the certificate of the public web and its key, or choose `https_spiffe`";
    fault(["bundleEndpoint"], "`https_web` needs `certFile` and `keyFile`", hint);
  }
  if (profile !== "https_web" && (certFile !== undefined || keyFile !== undefined)) {
    fault(["bundleEndpoint"], "`certFile` and `keyFile` belong to `https_web`", "set `profile: https_web`");
  }
  for (const [name, one] of Object.entries(given?.federatesWith ?? {})) {
    const path = ["federatesWith", name];
    const wrong = trustDomainFault(name);
    if (wrong !== null) {
      fault(path, `\`${name}\` is no trust domain: ${wrong}`, "write it as `other.org`");
    }
    if (name === own) {
      fault(path, "a trust domain does not federate with itself", "name the other one");
    }
    if (one.profile === "https_spiffe" && one.endpointSpiffeId === undefined) {
      fault(
        path,
        "`https_spiffe` needs `endpointSpiffeId`",
        "a SPIRE or everyhop server's is `spiffe://TD/spire/server`",
      );
    }
    if (one.profile === "https_web" && one.endpointSpiffeId !== undefined) {
      fault(path, "`endpointSpiffeId` belongs to `https_spiffe`", "set `profile: https_spiffe`, or leave it out");
    }
  }
  return issues;
}
