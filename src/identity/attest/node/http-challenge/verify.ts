/**
 * http_challenge: a node proves that it serves a DNS name, by showing a nonce at a well-known URL there.
 * SPEC: SPIRE, doc/plugin_server_nodeattestor_http_challenge.md. The server dials where a stranger tells it to: what it may dial,
 * what it follows and what it reads is bounded here and in fetch-nonce.ts.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { makeSpiffeId } from "../../../../core/spiffe/id.ts";
import { NONCE_BYTES, readPayload, textField, writePayload } from "../payload.ts";
import type { NodeVerifier } from "../proof.ts";
import { type DialRules, fetchNonce } from "./fetch-nonce.ts";

export interface HttpChallengeOptions extends DialRules {
  readonly requiredPort?: number;
  /** Ports from 1024 on, which any user of the host may serve. Default true. */
  readonly allowNonRootPorts?: boolean;
  /** Only the first agent of a host is let in, until it is evicted. Default true. */
  readonly tofu?: boolean;
}

const LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const HOST = new RegExp(`^(?=.{1,253}$)${LABEL}(\\.${LABEL})*$`);
const AGENT_NAME = /^[A-Za-z][A-Za-z0-9-]{0,31}$/;

/** Errors: `config-invalid`. */
export function httpChallengeVerifier(options: HttpChallengeOptions): NodeVerifier {
  const { requiredPort, allowNonRootPorts = true, tofu = true } = options;
  const patterns = (options.allowedDnsPatterns ?? []).map(compile);
  if (!tofu && (requiredPort === undefined ? allowNonRootPorts : requiredPort >= 1024)) {
    throw new EveryhopError("config-invalid", "`tofu` cannot be off where non-root ports are allowed", {
      hint: "set `requiredPort` below 1024, or `allowNonRootPorts: false`",
    });
  }
  return {
    type: "http_challenge",
    async verify(bytes, attempt) {
      const payload = readPayload(bytes, "attestation payload");
      const [host, agent] = [textField(payload, "hostname"), textField(payload, "agentname")];
      const port = checkPort(payload.port, requiredPort, allowNonRootPorts);
      if (!AGENT_NAME.test(agent)) {
        throw new EveryhopError("invalid-argument", "agent name is not valid");
      }
      checkHost(host, patterns);
      const path = `/spire/agent/http_challenge/${host}`;
      if (tofu && attempt.isAttested(makeSpiffeId(attempt.trustDomain, path))) {
        throw new EveryhopError("permission-denied", "attestation data has already been used to attest an agent");
      }
      const nonce = randomBytes(NONCE_BYTES).toString("base64url");
      await attempt.challenge(writePayload({ nonce }));
      const shown = await fetchNonce({ host, port, agent }, options);
      if (!sameText(shown, nonce)) {
        throw new EveryhopError("permission-denied", "expected nonce was not found in HTTP response");
      }
      return { path, selectors: [`http_challenge:hostname:${host}`], reattestable: !tofu, once: tofu };
    },
  };
}

function compile(pattern: string): RegExp {
  try {
    return new RegExp(pattern);
  } catch (cause) {
    throw new EveryhopError("config-invalid", `\`${pattern}\` is no regular expression`, { cause });
  }
}

function checkPort(port: unknown, requiredPort: number | undefined, allowNonRootPorts: boolean): number {
  if (typeof port !== "number" || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new EveryhopError("invalid-argument", "port is invalid");
  }
  if (requiredPort !== undefined && port !== requiredPort) {
    throw new EveryhopError("invalid-argument", `port ${port} is not allowed to be used by this server`);
  }
  if (!allowNonRootPorts && port >= 1024) {
    throw new EveryhopError("invalid-argument", `port ${port} is not allowed to be >= 1024`);
  }
  return port;
}

function checkHost(host: string, patterns: readonly RegExp[]): void {
  if (!HOST.test(host)) {
    throw new EveryhopError("invalid-argument", "the host name is not valid");
  }
  if (/(^|\.)localhost$/i.test(host)) {
    throw new EveryhopError("permission-denied", "you can not use localhost as a hostname");
  }
  if (patterns.length > 0 && !patterns.some((pattern) => pattern.test(host))) {
    throw new EveryhopError("permission-denied", "the requested hostname is not allowed to connect");
  }
}

function sameText(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}
