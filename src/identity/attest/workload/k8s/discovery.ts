/** Which resources a Kubernetes API has: the kind, version and scope behind a plural and its group. */
import type { Clock } from "../../../../core/base/clock.ts";
import { EveryhopError } from "../../../../core/base/errors.ts";
import type { KubeClient } from "../../../../io/kube.ts";
import { at, listAt, textAt } from "../document.ts";

export interface Resource {
  readonly plural: string;
  /** `core` for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

/** Custom resources come and go. */
const KEPT_MS = 60_000;
const MAX_KEPT = 500;

export class Discovery {
  readonly #kube: KubeClient;
  readonly #clock: Clock;
  readonly #known = new Map<string, { readonly resource: Resource; readonly atMs: number }>();

  constructor(kube: KubeClient, clock: Clock) {
    this.#kube = kube;
    this.#clock = clock;
  }

  /** Errors: `invalid-argument` where there is no such resource; `unavailable`, `permission-denied` as the API's. */
  async find(plural: string, group: string): Promise<Resource> {
    const key = `${plural}.${group}`;
    const known = this.#known.get(key);
    if (known !== undefined && this.#clock.now() - known.atMs < KEPT_MS) {
      return known.resource;
    }
    for (const version of await this.#versions(group)) {
      const list = await this.#kube.get(versionPath(group, version));
      const found = listAt(list, "resources").find((one) => textAt(one, "name") === plural);
      if (found !== undefined) {
        const kind = textAt(found, "kind");
        const resource = { plural, group, version, kind, namespaced: at(found, "namespaced") === true };
        this.#remember(key, resource);
        return resource;
      }
    }
    throw new EveryhopError("invalid-argument", `Kubernetes has no resource ${plural} in the group ${group}`);
  }

  /** The preferred one first. */
  async #versions(group: string): Promise<readonly string[]> {
    if (group === "core") {
      return ["v1"];
    }
    const document = await this.#kube.get(`/apis/${group}`);
    const names = [
      textAt(document, "preferredVersion", "version"),
      ...listAt(document, "versions").map((one) => textAt(one, "version")),
    ];
    return [...new Set(names)].filter((name) => /^[a-z0-9]{1,63}$/.test(name));
  }

  #remember(key: string, resource: Resource): void {
    this.#known.delete(key);
    this.#known.set(key, { resource, atMs: this.#clock.now() });
    if (this.#known.size > MAX_KEPT) {
      this.#known.delete(this.#known.keys().next().value as string);
    }
  }
}

function versionPath(group: string, version: string): string {
  return group === "core" ? `/api/${version}` : `/apis/${group}/${version}`;
}

/** Where a resource's objects are: all of them, or those of one namespace. */
export function collectionPath({ group, version, plural }: Resource, namespace: string): string {
  const within = namespace === "" ? "" : `/namespaces/${namespace}`;
  return `${versionPath(group, version)}${within}/${plural}`;
}

/** The kind of the version of a group, as objects write it. */
export function apiVersionOf({ group, version }: Pick<Resource, "group" | "version">): string {
  return group === "core" ? version : `${group}/${version}`;
}
