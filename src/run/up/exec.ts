/** `everyhop exec`: a command where a service of a running mesh runs. */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EveryhopError } from "../../core/base/errors.ts";
import { suggest } from "../../core/base/suggest.ts";
import type { Host } from "./host.ts";
import type { Plan, ServicePlan } from "./plan.ts";
import { isAlive } from "./recover.ts";
import { type ProcessName, writeState } from "./state.ts";

/** What it takes to be where a service is; in the state folder, for the owner of the mesh alone. */
export interface ServicePlace {
  readonly process: ProcessName;
  readonly cwd: string;
  /** The service's own variables, on top of the caller's environment; under --isolate all there is. */
  readonly env: Readonly<Record<string, string>>;
  /** Null on loopback. */
  readonly isolated: { readonly uid: number; readonly gid: number } | null;
}

const PLACES_FILE = "places.json";

export function writePlaces(
  plan: Plan,
  host: Host,
  processes: ReadonlyMap<string, ProcessName>,
  environment: (service: ServicePlan) => Record<string, string>,
): void {
  const places = plan.services.map((service): [string, ServicePlace] => {
    const { name } = service.service;
    const { pid, startTime } = processes.get(name) ?? { pid: 0, startTime: "0" };
    const isolated = service.place === null ? null : { uid: service.place.uid, gid: service.place.gid };
    return [name, { process: { pid, startTime }, cwd: host.cwd(plan), env: environment(service), isolated }];
  });
  writeState(join(plan.stateDir, PLACES_FILE), JSON.stringify(Object.fromEntries(places)));
}

/** The place of `service` in the mesh whose state is in `stateDir`. Errors: `not-found`, `unavailable`. */
export function readPlace(stateDir: string, service: string): ServicePlace {
  let places: Record<string, ServicePlace>;
  try {
    places = JSON.parse(readFileSync(join(stateDir, PLACES_FILE), "utf8")) as Record<string, ServicePlace>;
  } catch (error) {
    throw new EveryhopError("unavailable", `no mesh runs with its state in \`${stateDir}\``, {
      hint: "start one with `everyhop up`",
      cause: error,
    });
  }
  const place = Object.hasOwn(places, service) ? places[service] : undefined;
  if (place === undefined) {
    const near = suggest(service, Object.keys(places));
    throw new EveryhopError("not-found", `the mesh has no service \`${service}\``, {
      hint: near === null ? `it has ${Object.keys(places).join(", ")}` : `did you mean \`${near}\`?`,
    });
  }
  return place;
}

/** Runs `command` in `place` with our standard streams; resolves to its exit code (128 + n where signal n ended it). */
export async function runIn(
  place: ServicePlace,
  command: readonly string[],
  wrap: (place: ServicePlace) => readonly string[],
): Promise<number> {
  if (place.isolated !== null && !(await isAlive(place.process))) {
    throw new EveryhopError("unavailable", "the service's process has ended, and its view of the file system with it", {
      hint: "start the mesh again",
    });
  }
  const [file = "", ...args] = [...wrap(place), ...command];
  const env = place.isolated === null ? { ...process.env, ...place.env } : { ...place.env };
  const child = spawn(file, args, { cwd: place.isolated === null ? place.cwd : "/", env, stdio: "inherit" });
  // The terminal tells the command itself; what is sent to us alone is handed on.
  const handOn = (signal: NodeJS.Signals): void => {
    if (signal !== "SIGINT" || !process.stdin.isTTY) {
      child.kill(signal);
    }
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, handOn);
  }
  return new Promise((resolve, reject) => {
    child.once("error", (error) =>
      reject(
        new EveryhopError("file-missing", `cannot run \`${command[0]}\`: ${error.message}`, {
          hint: "is it in the service's PATH?",
          cause: error,
        }),
      ),
    );
    child.once("exit", (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : signalNumber(signal))));
  });
}

const SIGNALS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 };
const signalNumber = (signal: NodeJS.Signals): number => SIGNALS[signal] ?? 0;
