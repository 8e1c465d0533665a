/**
 * A GET of a URL that somebody else wrote: bounded in time and size, and never to an address that the machine alone, or its
 * network alone, can reach. The address is looked at when it is dialled, so that neither a redirect nor a name that
 * changes its mind leads anywhere else.
 */
import { lookup as resolveName } from "node:dns";
import { type IncomingMessage, type RequestOptions, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import type { Cidr } from "../core/base/cidr.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { mayReach } from "./public-address.ts";

export interface GuardedGetOptions {
  /** Blocks that may be reached although they are not public. */
  readonly allowed: readonly Cidr[];
  /** For all of it, redirects included. */
  readonly timeoutMs: number;
  readonly maxBytes: number;
}

export interface GuardedAnswer {
  readonly body: string;
  readonly headers: IncomingMessage["headers"];
}

const MAX_REDIRECTS = 3;

/** Errors: `permission-denied` for an address that must not be reached; `unavailable` with the cause. */
export async function guardedGet(url: string, options: GuardedGetOptions): Promise<GuardedAnswer> {
  const signal = AbortSignal.timeout(options.timeoutMs);
  try {
    let at = new URL(url);
    for (let redirects = 0; ; redirects++) {
      const response = await open(at, options.allowed, signal);
      const { statusCode = 0, headers } = response;
      if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
        response.destroy();
        if (redirects === MAX_REDIRECTS) {
          throw new Error(`more than ${MAX_REDIRECTS} redirects`);
        }
        at = redirected(at, headers.location);
        continue;
      }
      if (statusCode !== 200) {
        response.destroy();
        throw new Error(`status ${statusCode}`);
      }
      return { body: await read(response, options.maxBytes), headers };
    }
  } catch (error) {
    if (error instanceof EveryhopError) {
      throw error;
    }
    const message = signal.aborted ? `no answer within ${options.timeoutMs} ms` : (error as Error).message;
    throw new EveryhopError("unavailable", `\`${url}\`: ${message}`, { cause: error });
  }
}

function redirected(from: URL, location: string): URL {
  const to = new URL(location, from);
  if (from.protocol === "https:" && to.protocol !== "https:") {
    throw new Error("a redirect from https to http");
  }
  return to;
}

function refused(host: string): EveryhopError {
  return new EveryhopError("permission-denied", `\`${host}\` is not a public address`, {
    hint: "name it in `meshConfig.everyhopJwks.allow` if it is meant",
  });
}

function open(url: URL, allowed: readonly Cidr[], signal: AbortSignal): Promise<IncomingMessage> {
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new Error(`\`${url.protocol}\` is neither http nor https`);
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  // A name is looked at when it is resolved; an address is never resolved.
  if (isIP(host) !== 0 && !mayReach(host, allowed)) {
    throw refused(host);
  }
  const options: RequestOptions = {
    host,
    port: url.port,
    path: `${url.pathname}${url.search}`,
    headers: { host: url.host, accept: "application/json", "user-agent": "everyhop" },
    lookup: guardedLookup(allowed),
    agent: false,
    signal,
  };
  return new Promise((resolve, reject) => {
    const asking = url.protocol === "https:" ? requestHttps(options) : requestHttp(options);
    asking.once("error", reject);
    asking.once("response", resolve);
    asking.end();
  });
}

/** Gives only addresses that may be reached; with none of those it is an error. */
function guardedLookup(allowed: readonly Cidr[]): LookupFunction {
  return (hostname, options, done) => {
    resolveName(hostname, { ...options, all: true }, (error, addresses) => {
      const usable = error === null ? addresses.filter(({ address }) => mayReach(address, allowed)) : [];
      const [first] = usable;
      if (error !== null || first === undefined) {
        done(error ?? (refused(hostname) as NodeJS.ErrnoException), "", 0);
      } else if (options.all === true) {
        done(null, usable);
      } else {
        done(null, first.address, first.family);
      }
    });
  };
}

async function read(response: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) {
      response.destroy();
      throw new Error(`the answer is longer than ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
