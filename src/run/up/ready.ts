/** Waiting for the processes of a mesh, with an error that says what went wrong and what to do. */
import { CODES, type Code } from "../../core/base/codes.ts";
import { formatDuration } from "../../core/base/duration.ts";
import { EveryhopError } from "../../core/base/errors.ts";
import type { Child, Exit } from "./child.ts";
import { splitAddress } from "./environment.ts";
import type { ServicePlan } from "./plan.ts";
import { listensOn } from "./ports.ts";

const POLL_MS = 25;
const PROBE_TIMEOUT_MS = 2_000;

/** Resolves once `condition` is true. Errors: what `onExit` makes where the process ends first, `onLate` after the deadline. */
async function waitFor(
  child: Child,
  condition: () => Promise<boolean>,
  timeoutMs: number,
  signal: AbortSignal,
  errors: { onExit: (exit: Exit) => EveryhopError; onLate: () => EveryhopError },
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    signal.throwIfAborted();
    const exit = child.exit();
    if (exit !== null) {
      throw errors.onExit(exit);
    }
    if (await condition()) {
      return;
    }
    if (Date.now() > deadline) {
      throw errors.onLate();
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Until the service's process listens where it was told to. */
export function waitForService(plan: ServicePlan, child: Child, isolated: boolean, signal: AbortSignal): Promise<void> {
  const { name, startTimeoutMs } = plan.service;
  const port = Number(splitAddress(plan.app)[1]);
  return waitFor(child, () => listensOn(port, isolated ? child.pid : "self"), startTimeoutMs, signal, {
    onExit: (exit) =>
      withLastWords(child, `service \`${name}\` ${exitText(exit)} before it listened on ${plan.app}`, {
        hint: `run its command by hand in the mesh's folder: ${plan.service.command.join(" ")}`,
      }),
    onLate: () =>
      withLastWords(
        child,
        `service \`${name}\` does not listen on ${plan.app} after ${formatDuration(startTimeoutMs)}`,
        {
          hint: "make it listen on $HOST:$PORT, or say with `appPort` where it listens; `startTimeout` gives it more time",
        },
      ),
  });
}

/** Until a process of ours has said that it is ready; `ready` turns true with that line. */
export function waitForOwn(child: Child, ready: () => boolean, timeoutMs: number, signal: AbortSignal): Promise<void> {
  return waitFor(child, async () => ready(), timeoutMs, signal, {
    onExit: (exit) => ownFailure(child, exit),
    onLate: () =>
      withLastWords(child, `${child.title} is not ready after ${formatDuration(timeoutMs)}`, {
        hint: `its log is \`${child.log.file}\``,
      }),
  });
}

/** Until a sidecar has its service's identity and its policy. */
export function waitForSidecar(
  plan: ServicePlan,
  child: Child,
  service: Child,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  let last = "";
  const isReady = async (): Promise<boolean> => {
    if (service.exit() !== null) {
      throw withLastWords(
        service,
        `service \`${plan.service.name}\` ${exitText(service.exit())} while the mesh started`,
        {
          hint: `run its command by hand in the mesh's folder: ${plan.service.command.join(" ")}`,
        },
      );
    }
    const answer = await probe(`http://${plan.metrics}/readyz`);
    last = answer.text;
    return answer.ok;
  };
  return waitFor(child, isReady, timeoutMs, signal, {
    onExit: (exit) => ownFailure(child, exit),
    onLate: () =>
      withLastWords(child, `${child.title} is not ready after ${formatDuration(timeoutMs)}: ${last}`, {
        hint:
          "without an identity it serves nothing: is the program that runs the one of the service's command? " +
          "`selectors` in everyhop.yaml says otherwise",
      }),
  });
}

async function probe(url: string): Promise<{ ok: boolean; text: string }> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    return { ok: response.ok, text: (await response.text()).trim().slice(0, 500) };
  } catch (error) {
    const { message, cause } = error as Error;
    return { ok: false, text: cause instanceof Error ? cause.message : message };
  }
}

export function exitText(exit: Exit | null): string {
  return exit?.signal != null ? `was ended by ${exit.signal}` : `exited with code ${exit?.code ?? "unknown"}`;
}

function withLastWords(child: Child, message: string, { hint }: { hint: string }): EveryhopError {
  const lines = child.log.tail();
  const words =
    lines.length === 0 ? "it printed nothing" : `its last lines:\n${lines.map((l) => `    ${l}`).join("\n")}`;
  return new EveryhopError("service-failed", `${message}; ${words}`, { hint });
}

/** One of our own processes says with `--json` why it ends: that is the error. */
function ownFailure(child: Child, exit: Exit): EveryhopError {
  for (const line of child.log.tail().toReversed()) {
    const said = parseError(line);
    if (said !== null) {
      return new EveryhopError(said.code, `${child.title}: ${said.message}`, {
        ...(said.hint === undefined ? {} : { hint: said.hint }),
      });
    }
  }
  return withLastWords(child, `${child.title} ${exitText(exit)}`, { hint: `its log is \`${child.log.file}\`` });
}

function parseError(line: string): { code: Code; message: string; hint?: string } | null {
  if (!line.startsWith('{"error"')) {
    return null;
  }
  try {
    const { error } = JSON.parse(line) as { error?: { code?: string; message?: string; hint?: string } };
    if (typeof error?.code === "string" && Object.hasOwn(CODES, error.code)) {
      const { code, message = "", hint } = error;
      return { code: code as Code, message, ...(hint === undefined ? {} : { hint }) };
    }
  } catch {
    // Not ours.
  }
  return null;
}
