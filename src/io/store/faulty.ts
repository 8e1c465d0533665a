/** For tests: a store that fails. */
import { EveryhopError } from "../../core/base/errors.ts";
import type { Store } from "./store.ts";

/** Where the next write fails: before anything is done, or when it is done and the answer is lost. */
export type Fault = "before" | "after" | null;

const PARTS = ["entries", "nodes", "joinTokens", "issuance", "kills", "bundles", "relationships"] as const;

const away = (when: string): EveryhopError => new EveryhopError("unavailable", `the database is away (${when})`);

/** `store`, whose next call of any part fails as `faults.next` says. */
export function faultyStore(store: Store, faults: { next: Fault }): Store {
  const part = <T extends object>(of: T): T =>
    new Proxy(of, {
      get(target, name, receiver) {
        const method: unknown = Reflect.get(target, name, receiver);
        if (typeof method !== "function") {
          return method;
        }
        return async (...args: unknown[]) => {
          const fault = faults.next;
          faults.next = null;
          if (fault === "before") {
            throw away("before");
          }
          const result: unknown = await method.apply(target, args);
          if (fault === "after") {
            throw away("after");
          }
          return result;
        };
      },
    });
  const parts = Object.fromEntries(PARTS.map((name) => [name, part(store[name])]));
  return Object.assign(Object.create(store) as Store, parts);
}
