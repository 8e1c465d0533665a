/** SPEC: PeerAuthentication (istio/api security/v1beta1/peer_authentication.proto). */
import { object, optional, refined } from "../base/validate.ts";
import { type Envelope, type Report, readTargets, selectorShape, word } from "./admission.ts";
import type { MtlsMode, PeerAuthentication } from "./resources.ts";

type Mode = MtlsMode | "UNSET";

const mtls = object({ mode: optional(word("UNSET", "DISABLE", "PERMISSIVE", "STRICT")) });

const ports = refined(
  {
    read: (value, at) =>
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? (value as Record<string, unknown>)
        : at.fault("expected a mapping from port to mode"),
  },
  (given, at): Record<string, Mode> | undefined => {
    const result: Record<string, Mode> = {};
    if (Object.keys(given).length === 0) {
      return at.fault("needs at least one port", "leave `portLevelMtls` out");
    }
    for (const [key, value] of Object.entries(given)) {
      const port = /^\d{1,10}$/.test(key) ? Number(key) : Number.NaN;
      if (Number.isNaN(port)) {
        at.keyFault(key, `\`${key}\` is not a port number`);
      } else if (port < 1 || port > 65_535) {
        at.keyFault(key, `port ${key} is not between 1 and 65535`);
      } else {
        result[String(port)] = (value === null ? undefined : mtls.read(value, at.into(key))?.mode) ?? "UNSET";
      }
    }
    return result;
  },
);

export const peerSpec = object({
  selector: optional(selectorShape),
  mtls: optional(mtls),
  portLevelMtls: optional(ports),
});

type PeerSpec = Partial<NonNullable<ReturnType<typeof peerSpec.read>>>;

export function readPeerAuthentication(
  spec: PeerSpec,
  { annotations: _, ...envelope }: Envelope,
  report: Report,
): PeerAuthentication {
  const hasLabels = Object.keys(spec.selector?.matchLabels ?? {}).length > 0;
  if (spec.portLevelMtls !== undefined && !hasLabels) {
    report.fault(
      ["spec", "portLevelMtls"],
      "`portLevelMtls` needs a selector",
      "name the workload whose ports are meant in `selector.matchLabels`",
    );
  }
  return {
    kind: "PeerAuthentication",
    ...envelope,
    ...readTargets(spec, report),
    mode: spec.mtls?.mode ?? "UNSET",
    portLevelMtls: spec.portLevelMtls ?? {},
  };
}
