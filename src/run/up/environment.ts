/** The environment of a service. */
import type { Plan, ServicePlan } from "./plan.ts";
import { searchPath } from "./program.ts";
import { RUN_VARIABLE } from "./recover.ts";

/** Of the caller's environment, what a service in a namespace of its own gets: nothing of its owner's. */
const HARMLESS = ["LANG", "LC_ALL", "TERM", "TZ"] as const;

/** `payment-service` as a part of a variable's name. */
export function variableName(service: string): string {
  return service.toUpperCase().replaceAll("-", "_");
}

/**
 * PORT and HOST say where to listen; EVERYHOP_<NAME>_ADDR and _URL where to reach another service; SPIFFE_ENDPOINT_SOCKET is
 * the Workload API; EVERYHOP_STATE_DIR a folder of its own. What the mesh file gives wins.
 */
export function serviceVariables(
  plan: Plan,
  { service, app, outbound, dir, place }: ServicePlan,
): Record<string, string> {
  const [host = "", port = ""] = splitAddress(app);
  const variables: Record<string, string> = {
    [RUN_VARIABLE]: plan.run,
    EVERYHOP_SERVICE: service.name,
    EVERYHOP_STATE_DIR: dir,
    SPIFFE_ENDPOINT_SOCKET: `unix://${plan.agentSocket}`,
    HOST: host,
    PORT: port,
  };
  for (const other of plan.services) {
    const dialled = outbound[other.service.name];
    if (dialled !== undefined) {
      const name = variableName(other.service.name);
      // Under --isolate plain names lead to the other service, by way of our sidecar.
      const address = place === null ? dialled : `${other.service.name}:${other.service.port}`;
      const scheme = other.protocol === "tcp" ? "tcp" : "http";
      variables[`EVERYHOP_${name}_ADDR`] = address;
      variables[`EVERYHOP_${name}_URL`] = `${scheme}://${address}`;
    }
  }
  return { ...variables, ...service.env };
}

/**
 * The variables of a service, which go on top of `inherited` - or, under `--isolate`, stand alone: of `inherited` there is
 * only what is nobody's secret.
 */
export function serviceEnvironment(
  plan: Plan,
  service: ServicePlan,
  inherited: NodeJS.ProcessEnv,
): Record<string, string> {
  const variables = { PATH: searchPath(inherited), ...serviceVariables(plan, service) };
  if (service.place === null) {
    return variables;
  }
  const kept = HARMLESS.flatMap((name): [string, string][] => {
    const value = inherited[name];
    return value === undefined ? [] : [[name, value]];
  });
  return { ...Object.fromEntries(kept), HOME: service.dir, ...variables };
}

/** `host:port` (`[v6]:port`) in its two parts. */
export function splitAddress(address: string): [host: string, port: string] {
  const at = address.lastIndexOf(":");
  return [address.slice(0, at).replace(/^\[|\]$/g, ""), address.slice(at + 1)];
}
