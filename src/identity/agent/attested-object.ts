/** A Kubernetes object that a stream is open for: watched, and looked at again before anything new is sent for it. */
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { KubeClient } from "../../io/kube.ts";
import type { Log } from "../../io/log.ts";
import type { ObjectReference } from "../attest/workload/k8s/object-reference.ts";
import type { KubeObjects, ResolvedObject } from "../attest/workload/k8s/objects.ts";
import type { Subject } from "./subject.ts";

export interface ObjectWatchOptions {
  readonly objects: KubeObjects;
  readonly kube: KubeClient | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** How often an object is looked at whose changes nobody tells (a pod that the kubelet lists). */
const LOOK_MS = 2_000;
/** And one that is watched: rights may have been taken away, which no watch tells. */
const RECHECK_MS = 60_000;
/** After a watch has ended or failed. */
const REWATCH_MS = 2_000;
/** What was found out so recently is this moment's. */
const FRESH_MS = 500;

/** Resolves an object and watches it until closed. Errors: as `KubeObjects.resolve`. */
export async function watchObject(
  options: ObjectWatchOptions,
  reference: ObjectReference,
  broker: string,
): Promise<Subject> {
  const object = new AttestedObject(options, reference, broker);
  await object.current();
  object.start();
  return object;
}

class AttestedObject implements Subject {
  readonly #options: ObjectWatchOptions;
  readonly #reference: ObjectReference;
  readonly #broker: string;
  readonly #suspicions = new Set<() => void>();
  readonly #closed = new AbortController();
  #resolved: ResolvedObject | null = null;
  #resolvedAtMs = Number.NEGATIVE_INFINITY;
  #suspect = false;
  #cancelLook: () => void = () => {};
  #cancelWatch: () => void = () => {};

  constructor(options: ObjectWatchOptions, reference: ObjectReference, broker: string) {
    this.#options = options;
    this.#reference = reference;
    this.#broker = broker;
  }

  get attestation(): ResolvedObject {
    if (this.#resolved === null) {
      throw new EveryhopError("internal", "an object that was not resolved");
    }
    return this.#resolved;
  }

  get stale(): boolean {
    return this.#suspect;
  }

  async current(): Promise<ResolvedObject> {
    const { objects, clock } = this.#options;
    if (this.#resolved !== null && !this.#suspect && clock.now() - this.#resolvedAtMs < FRESH_MS) {
      return this.#resolved;
    }
    this.#suspect = false;
    const askedAtMs = clock.now();
    const found = await objects.resolve(this.#reference, this.#broker);
    // An object of the same name that was made anew is another one.
    if (this.#resolved !== null && this.#resolved.uid !== found.uid) {
      throw new EveryhopError("not-found", "the object was deleted, and another one made under its name");
    }
    this.#resolved = found;
    this.#resolvedAtMs = askedAtMs;
    return found;
  }

  start(): void {
    this.#look();
    void this.#watch();
  }

  onSuspicion(tell: () => void): () => void {
    this.#suspicions.add(tell);
    return () => this.#suspicions.delete(tell);
  }

  close(): void {
    this.#closed.abort();
    this.#cancelLook();
    this.#cancelWatch();
  }

  #look(): void {
    const everyMs = this.attestation.watchPath === null ? LOOK_MS : RECHECK_MS;
    this.#cancelLook = this.#options.clock.after(everyMs, () => {
      this.#tell();
      this.#look();
    });
  }

  async #watch(): Promise<void> {
    const { kube, log, clock } = this.#options;
    const { watchPath } = this.attestation;
    if (kube === null || watchPath === null) {
      return;
    }
    const tell = () => this.#tell();
    const event = ({ type }: { readonly type: string }) => type !== "BOOKMARK" && tell();
    try {
      // RACE: what happened between looking and watching is seen by looking again.
      await kube.watch(watchPath, { open: tell, event }, this.#closed.signal);
    } catch (error) {
      log.debug("a watch of a Kubernetes object failed", { error });
    }
    if (!this.#closed.signal.aborted) {
      this.#cancelWatch = clock.after(REWATCH_MS, () => void this.#watch());
    }
  }

  #tell(): void {
    this.#suspect = true;
    for (const tell of [...this.#suspicions]) {
      tell();
    }
  }
}
