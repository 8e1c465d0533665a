/** The agent's process. */
import { EveryhopError } from "../core/base/errors.ts";
import { type RunningAgent, startAgent } from "../identity/agent/agent.ts";
import { systemClock } from "../io/clock.ts";
import { type HttpListener, listenHttp } from "../io/http.ts";
import type { Log } from "../io/log.ts";
import { type AgentConfig, readJoinToken } from "./agent-config.ts";
import { agentMetrics } from "./agent-metrics.ts";
import { healthRoutes } from "./health.ts";
import { makeProof } from "./node-attestor.ts";
import { makeKubeObjects, makeWorkloadAttestors } from "./workload-attestors.ts";

/** What one line on standard output says when all is ready. */
export interface AgentReady {
  readonly ready: true;
  readonly spiffeId: string;
  /** `unix://…` */
  readonly socket: string;
  readonly brokerSocket: string;
  readonly adminSocket: string;
  /** `http://host:port/metrics`, or null. */
  readonly metrics: string | null;
}

export interface AgentProcess {
  readonly ready: AgentReady;
  /** Rejects where the agent cannot go on; see `startAgent`. */
  readonly ended: Promise<void>;
  close(): Promise<void>;
}

/** Starts the agent of a configuration. Errors: as `startAgent`. */
export async function runAgent(config: AgentConfig, log: Log): Promise<AgentProcess> {
  if (process.platform !== "linux") {
    throw new EveryhopError("not-supported", "the agent attests workloads by what the Linux kernel says of them", {
      hint: "run it on Linux, or in a Linux virtual machine",
    });
  }
  const agent = await startAgent({
    ...config,
    joinToken: readJoinToken(config),
    prove: config.nodeAttestor === null ? null : makeProof(config.nodeAttestor),
    attestors: makeWorkloadAttestors(config.workloadAttestors),
    kubeObjects: makeKubeObjects(config.workloadAttestors, process.env),
    clock: systemClock,
    random: Math.random,
    log,
  });
  const listeners: HttpListener[] = [];
  const close = async () => {
    await Promise.all([agent.close(), ...listeners.map((listener) => listener.close())]);
  };
  try {
    const http = config.metrics === null ? null : await serveMetrics(config.metrics, agent);
    listeners.push(...(http === null ? [] : [http]));
    if (config.health !== null) {
      listeners.push(await listenHttp(config.health.listen, healthRoutes(config.health)));
    }
    return {
      ready: {
        ready: true,
        spiffeId: agent.own.value.svid.id,
        socket: agent.socket,
        brokerSocket: agent.brokerSocket,
        adminSocket: agent.adminSocket,
        metrics: http === null ? null : `http://${http.host}:${http.port}/metrics`,
      },
      ended: agent.ended,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function serveMetrics(address: string, agent: RunningAgent): Promise<HttpListener> {
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, colon).replace(/^\[|\]$/g, "");
  const port = Number(address.slice(colon + 1));
  if (!Number.isInteger(port)) {
    throw new EveryhopError("config-invalid", `\`${address}\` is not \`host:port\``);
  }
  const metrics = agentMetrics(agent);
  const text = (body: string, status = 200) => ({
    status,
    contentType: "text/plain; charset=utf-8",
    body: `${body}\n`,
  });
  return listenHttp(
    { host, port },
    {
      "/metrics": async () => ({ contentType: metrics.contentType, body: await metrics.metrics() }),
      "/healthz": () => text("ok"),
      // The cache serves on while the server is away: that is a problem to see, no reason to take the agent away too.
      "/readyz": () => text(agent.sync.value.problem ?? "ok"),
    },
  );
}
