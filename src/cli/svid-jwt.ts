/** `svid fetch|watch --type jwt` and `svid validate`: JWT-SVIDs of this process. */
import { join } from "node:path";
import { EveryhopError } from "../core/base/errors.ts";
import { fromStatus } from "../io/rpc/errors.ts";
import { socketTarget } from "../workload/socket.ts";
import { workloadClient, workloadMetadata } from "../workload/workload-api.ts";
import { writeSvidFiles } from "./svid-files.ts";
import { note, print, printJson, reportFailure } from "./ui.ts";

export interface JwtOptions {
  readonly audience?: readonly string[];
  readonly spiffeId?: string;
  readonly outDir?: string;
  readonly json?: boolean;
}

interface Token {
  readonly spiffeId: string;
  readonly token: string;
  readonly hint: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
}

/** Prints tokens for the audience. Exit code 1 where there is no identity. */
export async function fetchJwt(socket: string, options: JwtOptions, timeoutMs: number): Promise<void> {
  const tokens = await ask(socket, options, timeoutMs).catch((error: EveryhopError) => refused(error, options));
  if (tokens === null) {
    return;
  }
  const files = Object.fromEntries(tokens.map(({ token }, index) => [`svid.${index}.jwt`, `${token}\n`]));
  if (options.outDir !== undefined) {
    writeSvidFiles(options.outDir, files);
  }
  const { outDir } = options;
  const written = outDir === undefined ? [] : Object.keys(files).map((name) => join(outDir, name));
  if (options.json === true) {
    printJson({ svids: tokens.map(describe), files: written });
    return;
  }
  for (const token of tokens) {
    print(`${token.spiffeId}  good until ${new Date(token.expiresAtMs).toISOString()}\n${token.token}`);
  }
  for (const file of written) {
    note(`wrote ${file}`);
  }
}

/** Prints new tokens whenever half of the life of those before is over, until told to stop. */
export async function watchJwt(socket: string, options: JwtOptions, stopped: Promise<void>): Promise<void> {
  let stop = false;
  const ended = stopped.then(() => {
    stop = true;
  });
  while (!stop) {
    let waitMs = RETRY_MS;
    try {
      const tokens = await ask(socket, options, RETRY_MS * 10);
      for (const token of tokens) {
        const { spiffeId, expiresAt } = describe(token);
        const time = new Date().toISOString();
        if (options.json === true) {
          printJson({ time, ...describe(token) });
        } else {
          print(`${time}  ${spiffeId}  until ${expiresAt}`);
        }
      }
      const next = Math.min(...tokens.map(({ issuedAtMs, expiresAtMs }) => (issuedAtMs + expiresAtMs) / 2));
      waitMs = Math.max(RETRY_MS, next - Date.now());
    } catch (error) {
      note(`${(error as EveryhopError).code}: ${(error as Error).message}`);
    }
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      ended,
      new Promise((resolve) => {
        timer = setTimeout(resolve, waitMs);
      }),
    ]);
    clearTimeout(timer);
  }
}

/** Whether the agent takes a token for an audience, and whose it is. Exit code 1: it does not. */
export async function validateJwt(
  socket: string,
  { audience, token, json }: { readonly audience: string; readonly token: string; readonly json?: boolean },
): Promise<void> {
  const client = workloadClient(socketTarget(socket));
  try {
    const { spiffeId, claims } = await client.validateJWTSVID(
      { audience, svid: token },
      { metadata: workloadMetadata() },
    );
    if (json === true) {
      printJson({ valid: true, spiffeId, claims: claims ?? {} });
    } else {
      print(`${spiffeId}\n${JSON.stringify(claims, null, 2)}`);
    }
  } catch (thrown) {
    const error = fromStatus(thrown);
    if (error.code !== "invalid-argument") {
      throw away(error);
    }
    if (json === true) {
      printJson({ valid: false, reason: error.message });
    } else {
      print(`not valid: ${error.message}`);
    }
    process.exitCode = 1;
  } finally {
    client.close();
  }
}

const RETRY_MS = 1_000;

async function ask(socket: string, options: JwtOptions, deadlineMs: number): Promise<readonly Token[]> {
  const { audience = [], spiffeId = "" } = options;
  if (audience.length === 0) {
    throw new EveryhopError("usage", "a JWT-SVID is for an audience", {
      hint: "say who it is for: `--audience spiffe://example.com/ns/NAMESPACE/sa/ACCOUNT`, or a name both sides know",
    });
  }
  const client = workloadClient(socketTarget(socket));
  try {
    const request = { audience: [...audience], spiffeId };
    const { svids } = await client.fetchJWTSVID(request, { metadata: workloadMetadata(), deadlineMs });
    return svids.map(({ spiffeId: id, svid, hint }) => ({ spiffeId: id, token: svid, hint, ...timesOf(svid) }));
  } catch (thrown) {
    throw away(fromStatus(thrown));
  } finally {
    client.close();
  }
}

/** When a token was made and ends. It comes from our own agent, over our own socket: it is read, not verified. */
function timesOf(token: string): { issuedAtMs: number; expiresAtMs: number } {
  const body = Buffer.from(token.split(".")[1] ?? "", "base64url").toString();
  const { iat = 0, exp = 0 } = JSON.parse(body) as { iat?: number; exp?: number };
  return { issuedAtMs: iat * 1_000, expiresAtMs: exp * 1_000 };
}

function describe({ spiffeId, token, hint, expiresAtMs }: Token) {
  return { spiffeId, token, expiresAt: new Date(expiresAtMs).toISOString(), ...(hint === "" ? {} : { hint }) };
}

function refused(error: EveryhopError, options: JwtOptions): null {
  if (error.code !== "permission-denied") {
    throw error;
  }
  const hint = "`everyhop entry explain --pid PID` says which selectors a process has, and what entries lack";
  reportFailure(new EveryhopError("permission-denied", error.message, { hint }), options.json === true);
  process.exitCode = 1;
  return null;
}

function away(error: EveryhopError): EveryhopError {
  if (error.code !== "unavailable") {
    return error;
  }
  return /^No connection/.test(error.message)
    ? new EveryhopError("unavailable", `no agent answered: ${error.message}`, {
        hint: "is the agent running? name its socket with `--socket unix:///PATH` or SPIFFE_ENDPOINT_SOCKET",
      })
    : new EveryhopError("unavailable", `the agent has no token to give: ${error.message}`, {
        hint: "its server is away, or signs none: the agent's log and its /readyz say why",
      });
}
