/** The pods of this node, looked up by container: many workloads that start together cost the kubelet one question. */
import type { Clock } from "../../../../core/base/clock.ts";
import { EveryhopError } from "../../../../core/base/errors.ts";
import type { Pod, PodContainer } from "./pod.ts";

export interface FoundContainer {
  readonly pod: Pod;
  /** Null where only the pod is known (yet). */
  readonly container: PodContainer | null;
}

export interface PodsOptions {
  readonly list: () => Promise<readonly Pod[]>;
  readonly clock: Clock;
  readonly maxAttempts: number;
  readonly retryMs: number;
  /** Whether the pod is enough: a container that its lifecycle hooks hold back is not listed. */
  readonly podIsEnough: boolean;
}

interface Listing {
  readonly askedAtMs: number;
  readonly pods: Promise<readonly Pod[]>;
}

/** Searches at once; a node runs at most some hundreds of containers. */
const MAX_SEARCHES = 2_000;

export class NodePods {
  readonly #options: PodsOptions;
  readonly #searches = new Map<string, Promise<FoundContainer>>();
  #listing: Listing | null = null;
  #busy: Promise<unknown> | null = null;

  constructor(options: PodsOptions) {
    this.#options = options;
  }

  /**
   * The pod that has a container. A container is listed a moment after it has started, so the kubelet is asked again, a limited
   * number of times. Errors: `not-found`, `failed-precondition`; `unavailable` and `permission-denied` as the kubelet's.
   */
  find(containerId: string, podUid: string | null): Promise<FoundContainer> {
    const key = `${podUid} ${containerId}`;
    let search = this.#searches.get(key);
    if (search === undefined) {
      if (this.#searches.size >= MAX_SEARCHES) {
        throw new EveryhopError("resource-exhausted", "too many containers are looked for at once");
      }
      search = this.#search(containerId, podUid).finally(() => this.#searches.delete(key));
      this.#searches.set(key, search);
    }
    return search;
  }

  /** All pods, as they were not longer than `retryMs` ago. */
  all(): Promise<readonly Pod[]> {
    return this.#since(this.#options.clock.now() - this.#options.retryMs);
  }

  async #search(containerId: string, podUid: string | null): Promise<FoundContainer> {
    const { clock, maxAttempts, retryMs, podIsEnough } = this.#options;
    let sinceMs = clock.now() - retryMs;
    for (let attempt = 1; ; attempt++) {
      try {
        const found = findIn(await this.#since(sinceMs), containerId, podUid, podIsEnough);
        if (found !== null) {
          return found;
        }
        if (attempt >= maxAttempts) {
          throw new EveryhopError("not-found", `the kubelet lists no pod with the container ${containerId}`, {
            hint: "a container that its pod's lifecycle hooks hold back is not listed: see `disableContainerSelectors`",
          });
        }
      } catch (error) {
        const final =
          error instanceof EveryhopError && error.code !== "unavailable" && error.code !== "permission-denied";
        if (final || attempt >= maxAttempts) {
          throw error;
        }
      }
      await new Promise<void>((resolve) => {
        clock.after(retryMs, resolve);
      });
      sinceMs = clock.now();
    }
  }

  /** A list that was asked for at `sinceMs` or later. */
  async #since(sinceMs: number): Promise<readonly Pod[]> {
    while (this.#listing === null || this.#listing.askedAtMs < sinceMs) {
      if (this.#busy === null) {
        const pods = this.#options.list();
        this.#listing = { askedAtMs: this.#options.clock.now(), pods };
        this.#busy = pods.then(
          () => {},
          () => {},
        );
        void this.#busy.then(() => {
          this.#busy = null;
        });
      } else {
        await this.#busy;
      }
    }
    const listing = this.#listing;
    try {
      return await listing.pods;
    } catch (error) {
      if (this.#listing === listing) {
        this.#listing = null;
      }
      throw error;
    }
  }
}

function findIn(
  pods: readonly Pod[],
  containerId: string,
  podUid: string | null,
  podIsEnough: boolean,
): FoundContainer | null {
  const candidates = podUid === null ? pods : pods.filter(({ uid }) => uid === podUid);
  const found = candidates.flatMap((pod): FoundContainer[] => {
    const container = [...pod.containers, ...pod.initContainers].find(({ id }) => id === containerId);
    return container === undefined ? [] : [{ pod, container }];
  });
  if (found.length > 1) {
    throw new EveryhopError("failed-precondition", `the kubelet lists the container ${containerId} in two pods`);
  }
  if (candidates.some(({ ephemeralContainers }) => ephemeralContainers.some(({ id }) => id === containerId))) {
    throw new EveryhopError(
      "failed-precondition",
      "the process is in an ephemeral container, which is none of the pod's own",
    );
  }
  const [pod] = candidates;
  return found[0] ?? (podIsEnough && podUid !== null && pod !== undefined ? { pod, container: null } : null);
}
