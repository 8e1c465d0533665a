/** The one request of http_challenge. Where it may go is decided on the address that is dialled, not on the name. */
import { lookup as systemLookup } from "node:dns";
import { type IncomingMessage, request } from "node:http";
import type { LookupFunction } from "node:net";
import { type Cidr, contains, parseCidr, parseIp, unmapped } from "../../../../core/base/cidr.ts";
import { EveryhopError } from "../../../../core/base/errors.ts";

export interface DialRules {
  /** Regular expressions, one of which the host name has to match; none: any. */
  readonly allowedDnsPatterns?: readonly string[];
  /** Private networks may be dialled too. Default: where the names are limited by patterns. */
  readonly allowPrivateAddresses?: boolean;
  /** For tests and labs. */
  readonly allowLoopback?: boolean;
  /** Default: the system's. */
  readonly lookup?: LookupFunction;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;
/** A nonce has 43 characters, and perhaps a line's end. */
const MAX_BODY_BYTES = 64;

const blocks = (...texts: readonly string[]): readonly Cidr[] =>
  texts.map((text) => parseCidr(text)).filter((block) => block !== null);
const LOOPBACK = blocks("127.0.0.0/8", "::1/128");
const PRIVATE = blocks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7");
/** "This host", link-local (where clouds keep their metadata), multicast, reserved, and IPv6 forms that hide an IPv4 address. */
const NEVER = blocks(
  "0.0.0.0/8",
  "169.254.0.0/16",
  "192.0.0.0/24",
  "198.18.0.0/15",
  "224.0.0.0/3",
  "::/128",
  "64:ff9b::/96",
  "2002::/16",
  "fe80::/10",
  "ff00::/8",
);

/** Why an address is not dialled; null where it may be. */
export function addressFault(text: string, rules: DialRules): string | null {
  const parsed = parseIp(text);
  if (parsed === null) {
    return "no address";
  }
  const address = unmapped(parsed);
  const within = (list: readonly Cidr[]) => list.some((block) => contains(block, address));
  const { allowPrivateAddresses = (rules.allowedDnsPatterns ?? []).length > 0, allowLoopback = false } = rules;
  if (within(NEVER)) {
    return "an address of that kind is nobody's host";
  }
  if (within(LOOPBACK) && !allowLoopback) {
    return "it is the server's own";
  }
  return within(PRIVATE) && !allowPrivateAddresses ? "it is of a private network" : null;
}

export interface NonceTarget {
  readonly host: string;
  readonly port: number;
  readonly agent: string;
}

class Refusal extends Error {}

/**
 * What the node shows: the first bytes of the answer, trimmed. Errors: `permission-denied` where it may not be asked, or answers
 * otherwise than with 200; no reason tells more than that of what is behind an address.
 */
export async function fetchNonce(target: NonceTarget, rules: DialRules): Promise<string> {
  try {
    const literal = parseIp(target.host) === null ? null : addressFault(target.host, rules);
    if (literal !== null) {
      throw new Refusal(`\`${target.host}\` is not dialled: ${literal}`);
    }
    const response = await ask(target, rules);
    if (response.statusCode !== 200) {
      response.destroy();
      throw new Refusal(`the node answered ${response.statusCode}`);
    }
    return await firstBytes(response);
  } catch (cause) {
    const why = cause instanceof Refusal ? cause.message : "no answer";
    throw new EveryhopError("permission-denied", `challenge verification failed: ${why}`, { cause });
  }
}

function ask({ host, port, agent }: NonceTarget, rules: DialRules): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const call = request({
      host,
      port,
      path: `/.well-known/spiffe/nodeattestor/http_challenge/${agent}/challenge`,
      // Not pooled. A redirect is an answer like any other that is not 200: it is never followed.
      agent: false,
      lookup: guardedLookup(rules),
      signal: AbortSignal.timeout(rules.timeoutMs ?? TIMEOUT_MS),
      maxHeaderSize: 8_192,
    });
    call.once("error", reject);
    call.once("response", resolve);
    call.end();
  });
}

async function firstBytes(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    chunks.push(chunk as Buffer);
    bytes += (chunk as Buffer).length;
    if (bytes >= MAX_BODY_BYTES) {
      break;
    }
  }
  return Buffer.concat(chunks).toString("latin1", 0, MAX_BODY_BYTES).trim();
}

/** INVARIANT: the very address that was judged is dialled; a name that resolves anew (DNS rebinding) is judged anew. */
function guardedLookup(rules: DialRules): LookupFunction {
  const lookup = rules.lookup ?? (systemLookup as LookupFunction);
  return (name, options, callback) =>
    lookup(name, { ...options, all: true }, (error, found) => {
      const all = Array.isArray(found) ? found : [];
      const good = all.filter(({ address }) => addressFault(address, rules) === null);
      const [first] = good;
      if (error !== null || first === undefined) {
        const why = all[0] === undefined ? "no address" : addressFault(all[0].address, rules);
        callback(error ?? new Refusal(`\`${name}\` is not dialled: ${why}`), [], 0);
      } else if (options.all === true) {
        callback(null, good);
      } else {
        callback(null, first.address, first.family);
      }
    });
}
