import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import { EveryhopError } from "../../core/base/errors.ts";
import { nearMisses } from "../../core/entries/near-miss.ts";
import { parseSelector, type Selector, selectorsMatch } from "../../core/entries/selector.ts";
import { parseSpiffeId } from "../../core/spiffe/id.ts";
import type { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import type { Health } from "../../gen/grpc/health/health_pb.js";
import { HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/grpc/health/health_pb.js";
import type { Store } from "../../io/store/store.ts";
import { auditCertificates, type SeenCertificate } from "./audit.ts";
import type { GuardedHandlers } from "./guard.ts";
import type { Registry } from "./registry.ts";

export interface AdminOptions {
  readonly store: Store;
  readonly registry: Registry;
  /** Certificates known to be in use, beside those of agents. */
  readonly seen: () => Promise<readonly SeenCertificate[]>;
}

/** The identity server's part of everyhop.admin.v1.Admin; the control plane has the other. */
export function adminService(
  options: AdminOptions,
): Pick<GuardedHandlers<typeof Admin>, "auditCertificates" | "explainEntry"> {
  const { store, registry } = options;
  return {
    async auditCertificates() {
      const seen = [...agentCertificates(registry), ...(await options.seen())];
      return toStruct(await auditCertificates(store.issuance, seen));
    },
    explainEntry: ({ agent, selectors }) => toStruct(explain(registry, agent, selectors.map(parseSelector))),
  };
}

function agentCertificates(registry: Registry): SeenCertificate[] {
  return registry
    .nodes()
    .flatMap(({ id, serial, next }) =>
      [serial, next?.serial ?? ""]
        .filter((one) => one !== "")
        .map((one) => ({ spiffeId: id, serial: one, seenBy: "agent" })),
    );
}

/** Which entries a workload's selectors match or nearly match: the answer to "why did I get no identity?". */
function explain(registry: Registry, agent: string, selectors: readonly Selector[]): object {
  const found = new Set(selectors);
  if (agent !== "" && registry.node(parseSpiffeId(agent)) === null) {
    throw new EveryhopError("not-found", `no agent \`${agent}\` has attested`, {
      hint: "`everyhop agent list` shows those that have",
    });
  }
  const entries = agent === "" ? registry.entries() : registry.authorizedEntries(parseSpiffeId(agent));
  const matched = entries.filter((entry) => selectorsMatch(entry.selectors, found));
  const handedOut = new Set(entries.map(({ id }) => id));
  const elsewhere = registry
    .entries()
    .filter((entry) => !handedOut.has(entry.id) && selectorsMatch(entry.selectors, found));
  return {
    selectors,
    matched: matched.map(({ id }) => id),
    nearMisses: nearMisses(entries, found).map(({ entry, missing, instead }) => ({
      entryId: entry.id,
      spiffeId: entry.spiffeId,
      missing,
      instead,
    })),
    // Entries that match, under a parent that this agent does not stand for, expired, or of an identity that is cut off.
    elsewhere: elsewhere.map(({ id, spiffeId, parentId }) => ({
      entryId: id,
      spiffeId,
      parentId,
      killed: registry.isKilled(spiffeId),
    })),
  };
}

function toStruct(document: object): Struct {
  return fromJson(StructSchema, JSON.parse(JSON.stringify(document)) as JsonValue);
}

/** grpc.health.v1.Health: up once it answers. */
export function healthService(): GuardedHandlers<typeof Health> {
  return {
    check({ service }) {
      if (service !== "") {
        throw new EveryhopError("not-found", "unknown service");
      }
      return { status: ServingStatus.SERVING };
    },
    watch(call) {
      const known = call.request.service === "";
      call.write({ status: known ? ServingStatus.SERVING : ServingStatus.SERVICE_UNKNOWN });
    },
  };
}
