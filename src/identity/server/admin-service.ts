import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import type { Health } from "../../gen/grpc/health/health_pb.js";
import { HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/grpc/health/health_pb.js";
import type { Store } from "../../io/store/store.ts";
import type { SigningService } from "../intent/service.ts";
import { auditCertificates, type SeenCertificate } from "./audit.ts";
import type { BundleProgress } from "./bundle-progress.ts";
import type { ChangeLog } from "./change-log.ts";
import { explain } from "./explain.ts";
import type { GuardedHandlers } from "./guard.ts";
import type { Registry } from "./registry.ts";
import { readSignerLog } from "./signer-log.ts";

export interface AdminOptions {
  readonly store: Store;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly changes: ChangeLog;
  readonly signer: Pick<SigningService, "log">;
  readonly progress: BundleProgress;
  /** Certificates known to be in use, beside those of agents. */
  readonly seen: () => Promise<readonly SeenCertificate[]>;
}

const DEFAULT_CHANGES = 100;

/** The identity server's part of everyhop.admin.v1.Admin; the control plane has the other. */
export function adminService(
  options: AdminOptions,
): Pick<GuardedHandlers<typeof Admin>, "auditCertificates" | "auditChanges" | "bundleProgress" | "explainEntry"> {
  const { store, registry, changes, signer } = options;
  return {
    async auditCertificates() {
      const now = options.clock.now();
      const log = await readSignerLog(signer);
      const seen = [...agentCertificates(registry), ...(await options.seen())];
      return toStruct(await auditCertificates({ store: store.issuance, seen, log, now }));
    },
    auditChanges: async ({ limit }) => toStruct(await changes.changes(limit === 0 ? DEFAULT_CHANGES : limit)),
    bundleProgress: () => toStruct(options.progress.document()),
    explainEntry: (question) => toStruct(explain(registry, options.clock.now(), question)),
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
