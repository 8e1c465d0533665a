/** The authorizers of one sidecar: made when first asked for, kept while the mesh config names them so. */
import type { ExtensionProvider } from "../../core/policy/mesh-config.ts";
import type { Log } from "../../io/log.ts";
import type { Address } from "../../io/net.ts";
import type { Authorizer } from "./check.ts";
import { grpcAuthorizer } from "./grpc.ts";
import { httpAuthorizer } from "./http.ts";
import { opaAuthorizer } from "./opa.ts";

/** Where a provider's `service` is reached: through the own sidecar where it is of the mesh, else by its name. */
export type Locate = (service: string, port: number) => Address;

export class Authorizers {
  readonly #locate: Locate;
  readonly #made = new Map<string, Authorizer>();

  readonly #bundleOf: (path: string) => Uint8Array | null;
  readonly #log: Log;

  constructor(locate: Locate, bundleOf: (path: string) => Uint8Array | null, log: Log) {
    this.#locate = locate;
    this.#bundleOf = bundleOf;
    this.#log = log;
  }

  /** Null where a provider of this kind cannot be asked: what it should decide is denied. */
  of(provider: ExtensionProvider): Authorizer | null {
    const key = JSON.stringify(provider);
    const known = this.#made.get(key);
    if (known !== undefined) {
      return known;
    }
    const made = this.#make(provider);
    if (made !== null) {
      this.#made.set(key, made);
    }
    return made;
  }

  #make({ kind, extAuthz, opaWasm }: ExtensionProvider): Authorizer | null {
    if (opaWasm !== null) {
      return opaAuthorizer(opaWasm, this.#bundleOf(opaWasm.bundle), this.#log);
    }
    if (extAuthz === null) {
      return null;
    }
    const address = (): Address => this.#locate(extAuthz.service, extAuthz.port);
    return kind === "grpc" ? grpcAuthorizer(extAuthz, address) : httpAuthorizer(extAuthz, address);
  }

  /** Another bundle: it is evaluated from now on. */
  bundlesChanged(providers: readonly ExtensionProvider[]): void {
    this.keepOnly(providers.filter(({ opaWasm }) => opaWasm === null));
  }

  /** Closes those that are no longer named. */
  keepOnly(providers: readonly ExtensionProvider[]): void {
    const named = new Set(providers.map((provider) => JSON.stringify(provider)));
    for (const [key, authorizer] of this.#made) {
      if (!named.has(key)) {
        this.#made.delete(key);
        authorizer.close();
      }
    }
  }

  close(): void {
    this.keepOnly([]);
  }
}

/** SOURCE: istio mesh/v1alpha1 ExtensionProvider: `[<Namespace>/]<Hostname>`. */
export function serviceNames(service: string): readonly string[] {
  const [namespace, host] = service.includes("/") ? service.split("/", 2) : [null, service];
  const [name = "", inNamespace] = (host ?? "").replace(/\.svc(\.cluster\.local)?$/, "").split(".");
  const known = inNamespace ?? namespace;
  return known === null || known === undefined ? [name] : [`${known}/${name}`];
}
