/** What the agent trusts the server by before it has heard from it. */
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { credentials } from "@grpc/grpc-js";
import { backoffMs } from "../../core/base/backoff.ts";
import type { Clock } from "../../core/base/clock.ts";
import { EveryhopError, toEveryhopError } from "../../core/base/errors.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import type { Log } from "../../io/log.ts";
import { makeClient } from "../../io/rpc/adapter.ts";
import { SPIFFE_CHANNEL_OPTIONS } from "../../io/rpc/channel.ts";
import { authoritiesOfText } from "./own-identity.ts";
import { readBundle } from "./read-bundle.ts";

/**
 * A PEM (or SPIFFE's JSON) file; where one is served, by https or on a unix socket; or the server's word, believed once, the first
 * time, from then on held to.
 */
export type TrustSource =
  | string
  | { readonly kind: "url"; readonly url: string; readonly socket: string | null }
  | { readonly kind: "server" };

export interface BootstrapOptions {
  readonly trustDomain: TrustDomain;
  readonly servers: readonly string[];
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
}

const PATIENCE_MS = 60_000;
const RETRY = { firstMs: 500, maxMs: 5_000 };
const TIMEOUT_MS = 10_000;
const MAX_BYTES = 4 << 20;

/** The first authorities, waited for as long as a server is. Errors: `unavailable`, `config-invalid`. */
export async function bootstrapAuthorities(
  source: Exclude<TrustSource, string>,
  options: BootstrapOptions,
): Promise<readonly Uint8Array[]> {
  const { clock, random, log, servers } = options;
  const giveUpAt = clock.now() + PATIENCE_MS;
  for (let attempt = 0; ; attempt++) {
    try {
      const server = servers[attempt % servers.length] ?? "";
      return await (source.kind === "url" ? ofUrl(source, options.trustDomain) : ofServer(server, options));
    } catch (thrown) {
      const error = toEveryhopError(thrown);
      const waitMs = backoffMs(attempt, RETRY, random());
      if (error.code !== "unavailable" || clock.now() + waitMs > giveUpAt) {
        throw error;
      }
      log.info("waiting for the trust bundle", { reason: error.message, waitMs: Math.round(waitMs) });
      await new Promise<void>((resolve) => void clock.after(waitMs, resolve));
    }
  }
}

/** SPEC: SPIRE, `insecure_bootstrap`: whoever answers is believed. What it says is what it is held to from then on. */
async function ofServer(server: string, { trustDomain, log }: BootstrapOptions): Promise<readonly Uint8Array[]> {
  log.warn("the server is believed without proof, this once: `insecureBootstrap` is set", { server });
  const unverified = credentials.createSsl(null, null, null, { rejectUnauthorized: false });
  const client = makeClient(Bundle, server, unverified, SPIFFE_CHANNEL_OPTIONS);
  try {
    const bundle = readBundle(await client.getBundle({}, { deadlineMs: TIMEOUT_MS }));
    if (bundle.trustDomain !== trustDomain) {
      throw new EveryhopError("config-invalid", `the server is of the trust domain \`${bundle.trustDomain}\``);
    }
    return bundle.x509Authorities;
  } catch (error) {
    if (error instanceof EveryhopError) {
      throw error;
    }
    throw new EveryhopError("unavailable", `no trust bundle from \`${server}\`: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    client.close();
  }
}

async function ofUrl(
  { url, socket }: { readonly url: string; readonly socket: string | null },
  trustDomain: TrustDomain,
): Promise<readonly Uint8Array[]> {
  const text = await get(url, socket).catch((cause: Error) => {
    throw new EveryhopError("unavailable", `no trust bundle at \`${url}\`: ${cause.message}`, { cause });
  });
  return authoritiesOfText(text, url, trustDomain);
}

/** No redirect is followed: an answer other than 200 is none. */
function get(url: string, socket: string | null): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { signal: AbortSignal.timeout(TIMEOUT_MS), ...(socket === null ? {} : { socketPath: socket }) };
    const call = (url.startsWith("https:") ? httpsRequest : httpRequest)(url, options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      if (response.statusCode !== 200) {
        response.destroy();
        reject(new Error(`status ${response.statusCode}`));
        return;
      }
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        chunks.push(chunk);
        if (bytes > MAX_BYTES) {
          response.destroy(new Error("it is too large"));
        }
      });
      response.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
      response.on("error", reject);
    });
    call.once("error", reject);
    call.end();
  });
}
