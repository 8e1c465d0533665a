/** The kill switch: a change without a debounce, and a count of who has it in force. */
import type { KillDocument } from "../core/api/admin.ts";
import type { Clock } from "../core/base/clock.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import {
  parseSpiffeId,
  pathOf,
  type SpiffeId,
  serverId,
  sidecarId,
  type TrustDomain,
  trustDomainOf,
} from "../core/spiffe/id.ts";
import type { Log } from "../io/log.ts";
import type { Identities } from "./identities.ts";
import type { Push } from "./push.ts";
import type { Reports } from "./reports.ts";
import { serviceId } from "./service.ts";

interface KillOptions {
  readonly trustDomain: TrustDomain;
  readonly identities: Identities;
  readonly push: Push;
  readonly reports: Reports;
  readonly clock: Clock;
  readonly log: Log;
  /** Publishes a world with the kills as they are now, if the last one has others. */
  readonly publishKills: () => void;
}

const CONFIRM_WITHIN_MS = 2_000;

export class KillSwitch {
  readonly #options: KillOptions;
  readonly #waiting = new Set<(node: string) => void>();

  constructor(options: KillOptions) {
    this.#options = options;
  }

  /** The sidecars of `node` have told of something that may be a confirmation. */
  progressed(node: string): void {
    for (const look of [...this.#waiting]) {
      look(node);
    }
  }

  /** Cuts `text` off. Errors: `invalid-argument`, `not-found` (nothing has that identity; `force` does it anyway). */
  async kill(text: string, force: boolean): Promise<KillDocument> {
    const { identities, clock, log } = this.#options;
    const started = clock.now();
    const id = this.#killable(text);
    const already = identities.kills.value.some((kill) => kill.spiffeId === id);
    if (!force && !already) {
      await this.#known(id);
    }
    const holding = already ? this.#nodesInForce() : new Set<string>();
    const { order } = await identities.kill(id);
    const version = this.#publish();
    const document = await this.#confirmed(id, order, version, (node) => !holding.has(node), started);
    log.warn("identity cut off", { ...document });
    return document;
  }

  /** Undoes a kill. Errors: `invalid-argument`, `not-found` where the identity is not cut off. */
  async restore(text: string): Promise<KillDocument> {
    const { identities, clock, log } = this.#options;
    const started = clock.now();
    const id = parseSpiffeId(text);
    const undone = await identities.restore(id);
    if (undone === null) {
      const near = suggest(
        id,
        identities.kills.value.map((kill) => kill.spiffeId),
      );
      throw new EveryhopError("not-found", `\`${id}\` is not cut off`, {
        hint: near === null ? "`everyhop status` lists the kills" : `did you mean \`${near}\`?`,
      });
    }
    const version = this.#publish();
    const document = await this.#confirmed(id, undone.order, version, () => false, started);
    log.warn("identity restored", { ...document });
    return document;
  }

  #killable(text: string): SpiffeId {
    const { trustDomain } = this.#options;
    const id = parseSpiffeId(text);
    const part = controlIdentity(id, trustDomain);
    if (part !== null) {
      throw new EveryhopError("invalid-argument", `\`${id}\` is ${part.what}: cutting it off would ${part.harm}`, {
        hint: part.hint,
      });
    }
    return id;
  }

  async #known(id: SpiffeId): Promise<void> {
    const { identities, push, trustDomain } = this.#options;
    const known = new Set<string>(push.world.services.map((service) => serviceId(service, trustDomain)));
    // What most are is answered without reading the journal: an order is urgent.
    if (known.has(id) || identities.isRegistered(id)) {
      return;
    }
    for (const { spiffeId } of await identities.known()) {
      known.add(spiffeId);
    }
    if (!known.has(id)) {
      const near = suggest(id, known);
      throw new EveryhopError("not-found", `nothing in this mesh has the identity \`${id}\``, {
        hint: `${near === null ? "`everyhop status` lists the identities" : `did you mean \`${near}\`?`}; \`--force\` cuts it off all the same`,
      });
    }
  }

  /** The world version that holds the kills as they are now. */
  #publish(): number {
    this.#options.publishKills();
    return this.#options.push.world.version;
  }

  #nodesInForce(): Set<string> {
    const { push } = this.#options;
    return new Set(push.nodes().filter((node) => push.stateOf(node).inForce === push.world.version));
  }

  /** Waits for every sidecar to have `version` in force and, where `receipts` asks for it, to have told what it closed. */
  async #confirmed(
    id: SpiffeId,
    order: string,
    version: number,
    receipts: (node: string) => boolean,
    started: number,
  ): Promise<KillDocument> {
    const { push, reports, clock } = this.#options;
    const nodes = push.nodes();
    const inForce = (node: string): boolean => {
      const { connected, inForce: held } = push.stateOf(node);
      return connected > 0 && held >= version;
    };
    const done = (node: string): boolean =>
      inForce(node) && (!receipts(node) || !reports.isReporting(node) || reports.receiptOf(node, order) !== null);
    // Who refuses the snapshot has given its answer: there is nothing to wait for.
    const over = (node: string): boolean => done(node) || push.stateOf(node).state === "rejected";
    const open = new Set(nodes.filter((node) => !over(node)));
    await new Promise<void>((resolve) => {
      const finish = (): void => {
        cancel();
        this.#waiting.delete(look);
        resolve();
      };
      const look = (node: string): void => {
        if (open.has(node) && over(node)) {
          open.delete(node);
        }
        if (open.size === 0) {
          finish();
        }
      };
      const cancel = clock.after(CONFIRM_WITHIN_MS, finish);
      this.#waiting.add(look);
      look("");
    });
    // What holds the order but did not say in time what it closed has it in force all the same.
    const unconfirmed = nodes.filter((node) => !inForce(node));
    return {
      order,
      spiffeId: id,
      confirmed: nodes.length - unconfirmed.length,
      total: nodes.length,
      unconfirmed: unconfirmed.map((node) => serviceName(node)),
      connectionsClosed: nodes.reduce((sum, node) => sum + (reports.receiptOf(node, order) ?? 0), 0),
      ms: Math.round(clock.now() - started),
    };
  }
}

export function serviceName(node: string): string {
  return node.slice(node.indexOf("/") + 1);
}

interface ControlPart {
  readonly what: string;
  readonly harm: string;
  readonly hint: string;
}

/** The identities that the mesh itself works by, or null for a workload's. */
function controlIdentity(id: SpiffeId, trustDomain: TrustDomain): ControlPart | null {
  const path = pathOf(id);
  if (trustDomainOf(id) === trustDomain && path.startsWith("/spire/agent/")) {
    return {
      what: "an agent",
      harm: "leave its workloads without identities",
      hint: "`everyhop agent ban` shuts an agent out; `everyhop kill` is for workloads",
    };
  }
  if (id === serverId(trustDomain)) {
    return { what: "the server", harm: "leave the mesh without its control plane", hint: "stop the server instead" };
  }
  if (id === sidecarId(trustDomain)) {
    return {
      what: "the identity that every sidecar opens the control plane with",
      harm: "leave all of them without new policies and kills",
      hint: "name the identity of the service instead",
    };
  }
  if (path === "") {
    return { what: "a whole trust domain", harm: "name no workload", hint: "name one identity of it" };
  }
  return null;
}
