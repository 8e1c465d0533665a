/** Federation as configured: our bundle endpoint, and the trust domains whose bundles we follow. */
import { readFileSync } from "node:fs";
import { getCACertificates } from "node:tls";
import type { Cell } from "../../../core/base/cell.ts";
import type { Clock } from "../../../core/base/clock.ts";
import { EveryhopError } from "../../../core/base/errors.ts";
import { type Bundle, emptyBundle, parseBundle } from "../../../core/spiffe/bundle.ts";
import type { EndpointProfile, Relationship } from "../../../core/spiffe/federation.ts";
import type { TrustDomain } from "../../../core/spiffe/id.ts";
import type { X509Svid } from "../../../core/spiffe/svid.ts";
import { parseCertificate } from "../../../core/x509/certificate.ts";
import { certificatesFromPem } from "../../../core/x509/pem.ts";
import type { HttpListener } from "../../../io/http.ts";
import type { Log } from "../../../io/log.ts";
import type { RelationshipRecord, Store } from "../../../io/store/store.ts";
import type { Bundles } from "../bundles.ts";
import type { Registry } from "../registry.ts";
import { serveBundleEndpoint, spiffeCredentials, webCredentials } from "./endpoint.ts";
import { fetchBundle } from "./fetch-bundle.ts";
import { Follower } from "./follower.ts";

export interface BundleEndpointConfig {
  readonly listen: { readonly host: string; readonly port: number };
  readonly profile:
    | { readonly kind: "https_spiffe" }
    | { readonly kind: "https_web"; readonly certFile: string; readonly keyFile: string };
  readonly refreshHintMs?: number;
}

/** A relationship that stands in the configuration. */
export interface ConfiguredRelationship extends Relationship {
  /** PEM or SPIFFE's JSON: the first bundle of this trust domain, used until its endpoint has answered. */
  readonly bundleFile?: string;
}

export interface FederationConfig {
  readonly bundleEndpoint?: BundleEndpointConfig;
  readonly federatesWith: readonly ConfiguredRelationship[];
  /** PEM file of authorities that `https_web` endpoints may have theirs from, besides the machine's. */
  readonly webCaFile?: string;
}

export interface FederationOptions {
  readonly config: FederationConfig;
  readonly svid: Cell<X509Svid>;
  readonly bundles: Bundles;
  readonly store: Store;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Log;
  /** The least time between two polls. Default a minute. */
  readonly minRefreshMs?: number;
}

export class Federation {
  readonly #options: FederationOptions;
  readonly #follower: Follower;
  readonly #unwatch: () => void;

  private constructor(options: FederationOptions) {
    const { config, bundles, clock, log, minRefreshMs } = options;
    const more = config.webCaFile === undefined ? [] : [readText(config.webCaFile)];
    this.#options = options;
    this.#follower = new Follower({
      bundles,
      fetch: (relationship) =>
        fetchBundle(relationship, {
          bundleOf: (domain) => storedBundle(bundles, domain),
          webAuthorities: () => [...getCACertificates("default"), ...getCACertificates("system"), ...more],
          now: () => clock.now(),
        }),
      clock,
      log,
      ...(minRefreshMs === undefined ? {} : { minRefreshMs }),
    });
    this.#follow();
    this.#unwatch = options.registry.watch(({ kind }) => kind === "relationship" && this.#follow());
  }

  /** What stands in the configuration goes before what was made while the server ran. */
  #follow(): void {
    const { config } = this.#options;
    const made = this.relationships().filter(
      (one) => !config.federatesWith.some(({ trustDomain }) => trustDomain === one.trustDomain),
    );
    this.#follower.follow([...config.federatesWith, ...made]);
  }

  /** Begins to follow. Errors: `file-missing`, `config-invalid`. */
  static async open(options: FederationOptions): Promise<Federation> {
    await takeFirstBundles(options.config.federatesWith, options.bundles);
    return new Federation(options);
  }

  /** Those that were made while the server ran, in order of trust domain. */
  relationships(): readonly Relationship[] {
    return this.#options.registry.relationships().map(relationshipOf);
  }

  relationship(trustDomain: TrustDomain): Relationship | null {
    return this.relationships().find((one) => one.trustDomain === trustDomain) ?? null;
  }

  /** `before` is done first, once it is known to be new: what its first poll needs. Errors: `already-exists`. */
  async create(relationship: Relationship, before: () => Promise<void>): Promise<void> {
    const { trustDomain } = relationship;
    const refuse = (there: boolean): void => {
      if (there) {
        throw new EveryhopError("already-exists", "federation relationship already exists");
      }
    };
    refuse(this.relationship(trustDomain) !== null);
    await before();
    await this.#options.store.relationships.put(trustDomain, (current) => {
      refuse(current !== null);
      return recordOf(relationship);
    });
  }

  /** Errors: `not-found`. */
  async update(
    trustDomain: TrustDomain,
    change: (current: Relationship) => Relationship,
    before: () => Promise<void>,
  ): Promise<Relationship> {
    const missing = () => new EveryhopError("not-found", "federation relationship not found");
    if (this.relationship(trustDomain) === null) {
      throw missing();
    }
    await before();
    const record = await this.#options.store.relationships.put(trustDomain, (current) => {
      if (current === null) {
        throw missing();
      }
      return recordOf(change(relationshipOf(current)));
    });
    return relationshipOf(record);
  }

  /** Whether it was there. Its bundle stays. */
  delete(trustDomain: TrustDomain): Promise<boolean> {
    return this.#options.store.relationships.delete(trustDomain);
  }

  /** Whether the last poll of each went well; one that was not polled yet is taken for well. */
  states(): ReadonlyMap<TrustDomain, boolean> {
    return this.#follower.states();
  }

  /** Polls the endpoint of `trustDomain` now. Errors: as Follower.refresh. */
  refresh(trustDomain: TrustDomain): Promise<void> {
    return this.#follower.refresh(trustDomain);
  }

  /** Opens our own bundle endpoint; null where none is configured. Errors: `port-in-use`, `file-missing`, `config-invalid`. */
  async listen(): Promise<HttpListener | null> {
    const { bundleEndpoint } = this.#options.config;
    return bundleEndpoint === undefined ? null : openEndpoint(bundleEndpoint, this.#options);
  }

  close(): void {
    this.#unwatch();
    this.#follower.close();
  }
}

function relationshipOf({ trustDomain, url, endpointSpiffeId }: RelationshipRecord): Relationship {
  const profile: EndpointProfile =
    endpointSpiffeId === null ? { kind: "https_web" } : { kind: "https_spiffe", endpointSpiffeId };
  return { trustDomain, url, profile };
}

function recordOf({ trustDomain, url, profile }: Relationship): RelationshipRecord {
  return { trustDomain, url, endpointSpiffeId: profile.kind === "https_web" ? null : profile.endpointSpiffeId };
}

/** An endpoint may be of any trust domain we hold a bundle of, our own included. */
function storedBundle(bundles: Bundles, domain: TrustDomain): Bundle | undefined {
  return domain === bundles.own.value.trustDomain ? bundles.own.value : (bundles.federatedWith(domain) ?? undefined);
}

async function openEndpoint(
  { listen, profile, refreshHintMs }: BundleEndpointConfig,
  { svid, bundles, clock, log }: FederationOptions,
): Promise<HttpListener> {
  const shared = {
    listen,
    bundle: bundles.own,
    ...(refreshHintMs === undefined ? {} : { refreshHintMs }),
  };
  if (profile.kind === "https_spiffe") {
    return serveBundleEndpoint({ ...shared, credentials: spiffeCredentials(svid) });
  }
  const onError = (error: unknown) => log.error("the bundle endpoint's certificate could not be read again", { error });
  const { credentials, close } = webCredentials({ ...profile, clock, onError });
  try {
    const listener = await serveBundleEndpoint({ ...shared, credentials });
    return {
      ...listener,
      close: () => {
        close();
        return listener.close();
      },
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** What is stored is newer than any file. */
async function takeFirstBundles(relationships: readonly ConfiguredRelationship[], bundles: Bundles): Promise<void> {
  for (const { trustDomain, bundleFile } of relationships) {
    if (bundleFile !== undefined && bundles.federatedWith(trustDomain) === null) {
      const bundle = readBundleFile(trustDomain, bundleFile);
      await bundles.set(trustDomain, (current) => current ?? bundle);
    }
  }
}

function readBundleFile(trustDomain: TrustDomain, file: string): Bundle {
  const text = readText(file);
  try {
    if (text.trimStart().startsWith("{")) {
      return parseBundle(trustDomain, text);
    }
    const x509Authorities = certificatesFromPem(text);
    x509Authorities.forEach(parseCertificate);
    return { ...emptyBundle(trustDomain), x509Authorities };
  } catch (cause) {
    throw new EveryhopError("config-invalid", `\`${file}\` is no trust bundle: ${(cause as Error).message}`, {
      hint: "PEM certificates or SPIFFE's JSON, as `everyhop bundle show` of the other trust domain prints them",
      cause,
    });
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(cause as Error).message}`, {
      hint: "`federation` in the server's configuration names it; paths are relative to that file",
      cause,
    });
  }
}
