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
export function serviceVariables(plan: Plan, { service, app, outbound, dir }: ServicePlan): Record<string, string> {
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
    const address = outbound[other.service.name];
    if (address !== undefined) {
      const name = variableName(other.service.name);
      const scheme = other.protocol === "tcp" ? "tcp" : "http";
      variables[`EVERYHOP_${name}_ADDR`] = address;
      variables[`EVERYHOP_${name}_URL`] = `${scheme}://${address}`;
    }
  }
  return { ...variables, ...service.env };
}

/** The whole environment, on top of `inherited` (of which little is left under `--isolate`). */
export function serviceEnvironment(plan: Plan, service: ServicePlan, inherited: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const variables = { PATH: searchPath(inherited), ...serviceVariables(plan, service) };
  if (service.place === null) {
    return { ...inherited, ...variables };
  }
  const kept = Object.fromEntries(HARMLESS.flatMap((name) => (inherited[name] ? [[name, inherited[name]]] : [])));
  return { ...kept, HOME: service.dir, ...variables };
}

/** `host:port` (`[v6]:port`) in its two parts. */
export function splitAddress(address: string): [host: string, port: string] {
  const at = address.lastIndexOf(":");
  return [address.slice(0, at).replace(/^\[|\]$/g, ""), address.slice(at + 1)];
}
