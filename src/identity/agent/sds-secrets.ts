/** Which secrets a request for SDS names, and how Envoy wants them. SPEC: SPIRE, the agent's SDS v3. */
import { create } from "@bufbuild/protobuf";
import { type Any, anyPack } from "@bufbuild/protobuf/wkt";
import { status as Status } from "@grpc/grpc-js";
import type { X509Svid } from "../../core/spiffe/svid.ts";
import { certificatesToPem, formatPem } from "../../core/x509/pem.ts";
import {
  SecretSchema,
  SPIFFECertValidatorConfigSchema,
} from "../../gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js";
import type { DiscoveryRequest, Node } from "../../gen/envoy/service/discovery/v3/discovery_pb.js";
import { type CallEnd, Ended, invalid, unavailable } from "./answer.ts";
import type { Entitlement, HeldBundle } from "./cache.ts";

/** SPIRE's `sds {}` block. */
export interface SdsOptions {
  /** The name under which the first X.509-SVID is asked for. */
  readonly defaultSvidName: string;
  /** The name of the own trust domain's validation context. */
  readonly defaultBundleName: string;
  /** The name of the validation context of the own and all federated trust domains. */
  readonly defaultAllBundlesName: string;
  /** Plain `trusted_ca`, where Envoy's own validator is not to be used whatever Envoy's version. */
  readonly disableSpiffeCertValidation: boolean;
}

export const SDS_DEFAULTS: SdsOptions = {
  defaultSvidName: "default",
  defaultBundleName: "ROOTCA",
  defaultAllBundlesName: "ALL",
  disableSpiffeCertValidation: false,
};

/** What of a request matters. */
export interface SecretsWanted {
  /** None: everything. */
  readonly names: ReadonlySet<string>;
  readonly typeUrl: string;
}

export interface Chosen {
  readonly name: string;
  readonly secret: { readonly svid: X509Svid } | { readonly bundles: readonly HeldBundle[]; readonly all: boolean };
}

export function wantedBy({ resourceNames, typeUrl }: DiscoveryRequest): SecretsWanted {
  return { names: new Set(resourceNames.filter((name) => name !== "")), typeUrl };
}

/**
 * The secrets asked for, or `wait` where SVIDs are on their way. Within one request the own bundle goes by one of its names and
 * an SVID by one of its, as in SPIRE. Throws `Ended` where a name is nobody's, or not this workload's.
 */
export function chooseSecrets(
  { names }: SecretsWanted,
  { identities, missing, bundles }: Entitlement,
  options: SdsOptions,
): readonly Chosen[] | "wait" {
  const left = new Set(names);
  const chosen: Chosen[] = [];
  const choose = (name: string, secret: Chosen["secret"]) => {
    left.delete(name);
    chosen.push({ name, secret });
  };
  const wants = (name: string) => names.size === 0 || left.has(name);
  const [own, ...federated] = bundles;
  if (own !== undefined) {
    const name = `spiffe://${own.bundle.trustDomain}`;
    if (wants(name)) {
      choose(name, { bundles: [own], all: false });
    } else if (left.has(options.defaultBundleName)) {
      choose(options.defaultBundleName, { bundles: [own], all: false });
    } else if (left.has(options.defaultAllBundlesName)) {
      choose(options.defaultAllBundlesName, { bundles, all: true });
    }
  }
  for (const one of federated) {
    const name = `spiffe://${one.bundle.trustDomain}`;
    if (wants(name)) {
      choose(name, { bundles: [one], all: false });
    }
  }
  if ((names.size === 0 || left.size > 0) && missing.some(({ failure }) => failure === null)) {
    return "wait";
  }
  const given = new Set<string>();
  for (const [index, { svid }] of identities.entries()) {
    if (wants(svid.id) && !given.has(svid.id)) {
      given.add(svid.id);
      choose(svid.id, { svid });
    } else if (index === 0 && left.has(options.defaultSvidName)) {
      choose(options.defaultSvidName, { svid });
    }
  }
  if (left.size > 0) {
    const [failed] = missing;
    throw new Ended(
      failed === undefined
        ? unauthorized([...left].sort())
        : unavailable(`no SVID could be obtained: ${failed.failure}`),
    );
  }
  return chosen;
}

function unauthorized(names: readonly string[]): CallEnd {
  const quoted = names.map((name) => JSON.stringify(name)).join(" ");
  return invalid(`workload is not authorized for the requested identities [${quoted}]`);
}

/** Whether this Envoy verifies peers by SPIFFE's rules itself: since 1.18, unless told not to by us or in its node's metadata. */
export function takesSpiffeValidator(node: Node | undefined, options: SdsOptions): boolean {
  const told = node?.metadata?.disable_spiffe_cert_validation;
  if (options.disableSpiffeCertValidation || told === true || TRUE.has(String(told))) {
    return false;
  }
  const version = node?.userAgentVersionType;
  const { majorNumber = 0, minorNumber = 0 } =
    version?.case === "userAgentBuildVersion" ? (version.value.version ?? {}) : {};
  return majorNumber > 1 || (majorNumber === 1 && minorNumber >= 18);
}

/** What Go's strconv.ParseBool takes for true. */
const TRUE: ReadonlySet<string> = new Set(["1", "t", "T", "true", "TRUE", "True"]);

/** Differs whenever what `encodeSecrets` makes does. */
export function secretsKey(chosen: readonly Chosen[], spiffeValidator: boolean): string {
  const parts = chosen.map(({ name, secret }) =>
    "svid" in secret
      ? `${name}=${secret.svid.serial}`
      : `${name}=${secret.bundles.map(({ bundle, version }) => `${bundle.trustDomain}@${version}`).join()}`,
  );
  return `${spiffeValidator} ${parts.join(" ")}`;
}

/** Throws `Ended` where this Envoy cannot be given what it asks for. */
export function encodeSecrets(chosen: readonly Chosen[], spiffeValidator: boolean): Any[] {
  return chosen.map(({ name, secret }) => {
    const type =
      "svid" in secret
        ? { case: "tlsCertificate" as const, value: tlsCertificate(secret.svid) }
        : {
            case: "validationContext" as const,
            value: spiffeValidator ? spiffeContext(secret.bundles) : plainContext(secret),
          };
    return anyPack(SecretSchema, create(SecretSchema, { name, type }));
  });
}

function tlsCertificate({ chain, keyDer }: X509Svid) {
  return { certificateChain: inline(certificatesToPem(chain)), privateKey: inline(formatPem("PRIVATE KEY", keyDer)) };
}

/** Each trust domain by its own bundle: the only form in which several of them may stand side by side. */
function spiffeContext(bundles: readonly HeldBundle[]) {
  const trustDomains = bundles
    .map(({ bundle }) => ({
      name: bundle.trustDomain as string,
      trustBundle: inline(certificatesToPem(bundle.x509Authorities)),
    }))
    .sort((left, right) => (left.name < right.name ? -1 : 1));
  const config = create(SPIFFECertValidatorConfigSchema, { trustDomains });
  return {
    customValidatorConfig: {
      name: "envoy.tls.cert_validator.spiffe",
      typedConfig: anyPack(SPIFFECertValidatorConfigSchema, config),
    },
  };
}

/** INVARIANT: authorities of two trust domains are never put into one list. */
function plainContext({ bundles, all }: { readonly bundles: readonly HeldBundle[]; readonly all: boolean }) {
  if (all) {
    throw new Ended({ code: Status.INTERNAL, details: 'unable to use "SPIFFE validator" on Envoy below 1.17' });
  }
  return { trustedCa: inline(certificatesToPem(bundles[0]?.bundle.x509Authorities ?? [])) };
}

function inline(pem: string) {
  return { specifier: { case: "inlineBytes" as const, value: Buffer.from(pem) } };
}
