/**
 * An authorizer over HTTP: the request's head again, to another server; 200 allows, anything else denies.
 * SOURCE: envoy source/extensions/filters/common/ext_authz/ext_authz_http_impl.cc; istio authz/builder/extauthz.go.
 */
import { Agent, type IncomingMessage, request } from "node:http";
import type { ExtAuthzProvider } from "../../core/policy/mesh-config.ts";
import type { Address } from "../../io/net.ts";
import { type Authorizer, type Check, type CheckedRequest, type CheckResult, isUsable, matchesName } from "./check.ts";

const MAX_BODY_BYTES = 1024 * 1024;

export function httpAuthorizer(provider: ExtAuthzProvider, address: () => Address): Authorizer {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  return {
    async check({ request: checked }: Check, signal) {
      if (checked === null) {
        return { kind: "failed", message: "an HTTP provider cannot be asked about a TCP connection" };
      }
      const timeout = AbortSignal.timeout(Math.min(provider.timeoutMs, 2 ** 31 - 1));
      const either = AbortSignal.any([signal, timeout]);
      try {
        const response = await ask(provider, address(), checked, agent, either);
        return await readAnswer(provider, response);
      } catch (error) {
        return { kind: "failed", message: timeout.aborted ? "no answer in time" : (error as Error).message };
      }
    },
    close: () => agent.destroy(),
  };
}

function ask(
  provider: ExtAuthzProvider,
  { host, port }: Address,
  checked: CheckedRequest,
  agent: Agent,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const body = checked.body?.bytes ?? null;
    const asking = request({
      host,
      port,
      method: checked.method,
      path: provider.pathPrefix + checked.path,
      headers: askedHeaders(provider, checked),
      agent,
      signal,
    });
    asking.once("response", resolve);
    asking.once("error", reject);
    asking.end(body ?? undefined);
  });
}

/** `authorization` and what the provider names; Host is the request's own. */
function askedHeaders(provider: ExtAuthzProvider, { headers, host, body }: CheckedRequest): string[] {
  const wanted = ["authorization", ...provider.includeRequestHeadersInCheck];
  const lines = headers.filter(
    ([name, value]) => name !== "host" && matchesName(wanted, name) && isUsable(name, value),
  );
  const more = Object.entries(provider.includeAdditionalHeadersInCheck).filter(([name, value]) =>
    isUsable(name, value),
  );
  const replaced = new Set(more.map(([name]) => name.toLowerCase()));
  const partial: [string, string][] = body === null ? [] : [["x-envoy-auth-partial-body", String(body.isPartial)]];
  return [
    ["host", host] as const,
    ["content-length", String(body?.bytes.length ?? 0)] as const,
    ...lines.filter(([name]) => !replaced.has(name)),
    ...more,
    ...partial,
  ].flat();
}

async function readAnswer(provider: ExtAuthzProvider, response: IncomingMessage): Promise<CheckResult> {
  const status = response.statusCode ?? 0;
  const body = await read(response);
  const headers = pairsOf(response);
  if (status >= 500) {
    return { kind: "failed", message: `the authorizer answered ${status}` };
  }
  if (status === 200) {
    const up = headers.filter(([name]) => matchesName(provider.headersToUpstreamOnAllow, name));
    const removed = response.headers["x-envoy-auth-headers-to-remove"];
    return {
      kind: "allowed",
      headers: up.map(([name, value]) => ({ name, value, how: "overwrite" })),
      remove: typeof removed === "string" ? removed.split(",").map((name) => name.trim().toLowerCase()) : [],
      answerHeaders: headers.filter(([name]) => matchesName(provider.headersToDownstreamOnAllow, name)),
    };
  }
  const named = provider.headersToDownstreamOnDeny;
  const always = ["www-authenticate", "location"];
  // SOURCE: envoy ext_authz.proto: where none are named, all go to the client.
  const down = headers.filter(([name]) => named.length === 0 || always.includes(name) || matchesName(named, name));
  return { kind: "denied", status, headers: down, body };
}

function pairsOf({ rawHeaders }: IncomingMessage): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name, value] = [rawHeaders[at]!.toLowerCase(), rawHeaders[at + 1]!];
    if (isUsable(name, value) && name !== "date") {
      pairs.push([name, value]);
    }
  }
  return pairs;
}

async function read(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) {
      response.destroy();
      throw new Error("the authorizer's answer is too long");
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("latin1");
}
