/** The lines of the access log. INVARIANT: an identity in them is one that mutual TLS proved; else it is null. */
import type { SpiffeId } from "../core/spiffe/id.ts";
import { jsonString, timestamp } from "./access-log.ts";
import type { Cause } from "./connections.ts";
import type { ProxyContext } from "./context.ts";
import type { Verdict } from "./enforce.ts";
import type { HttpFront } from "./http-front.ts";

export interface UpstreamLine {
  readonly name: string;
  readonly endpoint: string | null;
  /** What the server proved to be. */
  readonly principal: SpiffeId | null;
}

interface Common {
  readonly direction: "inbound" | "outbound";
  readonly sourcePrincipal: SpiffeId | null;
  readonly sourceIp: string;
  /** The upstream, for outbound. */
  readonly destination: UpstreamLine | null;
  readonly verdict: Verdict | null;
  readonly denialId: string | null;
  readonly cause: Cause | null;
}

const orNull = (text: string | null): string => (text === null ? "null" : jsonString(text));

/** HOT. */
function tail(context: ProxyContext, line: Common): string {
  const { verdict, destination } = line;
  const version = context.state.facts.value?.snapshot.version ?? 0;
  const decided =
    verdict === null
      ? `"decision":null,"reason":null,"policy":null,"rule":null`
      : `"decision":"${verdict.decision}","reason":"${verdict.reason}","policy":${orNull(verdict.policy)},"rule":${verdict.rule}`;
  const dryRun =
    verdict === null || context.state.facts.value?.enforcer.hasDryRun !== true
      ? ""
      : `,"dry_run_decision":"${verdict.dryRun.decision}","dry_run_policy":${orNull(verdict.dryRun.policy)}`;
  const upstream =
    destination === null
      ? ""
      : `,"upstream_cluster":${jsonString(destination.name)},"upstream_host":${orNull(destination.endpoint)},"destination_principal":${orNull(destination.principal)}`;
  return (
    `"source_principal":${orNull(line.sourcePrincipal)},"downstream_remote_address":"${line.sourceIp}"${upstream},` +
    `${decided}${dryRun},"denial":${orNull(line.denialId)},"snapshot_version":${version}` +
    `${line.cause === null ? "" : `,"connection_termination_details":"${line.cause}"`}}`
  );
}

/** HOT: one HTTP exchange. */
export function logExchange(
  context: ProxyContext,
  front: HttpFront,
  line: Common & { readonly durationMs: number },
): void {
  const { accessLog, clock } = context;
  if (accessLog === null) {
    return;
  }
  const { head, answer } = front.exchange;
  const startMs = clock.now() - line.durationMs;
  accessLog.write(
    `{"start_time":"${timestamp(startMs)}","direction":"${line.direction}","protocol":"HTTP/1.${head.minor}",` +
      `"method":${jsonString(head.method)},"path":${jsonString(front.exchange.path)},"authority":${jsonString(head.host)},"request_id":${orNull(front.exchange.knownRequestId())},` +
      `"response_code":${front.exchange.status},"response_flags":"${front.exchange.flags}",` +
      `"response_code_details":${answer === null ? '"via_upstream"' : jsonString(answer.details)},` +
      `"bytes_received":${front.exchange.received},"bytes_sent":${front.exchange.sent},"duration":${Math.round(line.durationMs * 1_000) / 1_000},` +
      tail(context, line),
  );
}

/** One TCP connection, or one that was refused before it said anything. */
export function logConnection(
  context: ProxyContext,
  line: Common & {
    readonly startedMs: number;
    readonly flags: string;
    readonly details: string;
    readonly received: number;
    readonly sent: number;
  },
): void {
  const { accessLog, clock } = context;
  if (accessLog === null) {
    return;
  }
  accessLog.write(
    `{"start_time":"${timestamp(line.startedMs)}","direction":"${line.direction}","protocol":"TCP","method":null,"path":null,` +
      `"authority":null,"response_code":0,"response_flags":"${line.flags}","response_code_details":${jsonString(line.details)},` +
      `"bytes_received":${line.received},"bytes_sent":${line.sent},"duration":${Math.max(0, clock.now() - line.startedMs)},` +
      tail(context, line),
  );
}
