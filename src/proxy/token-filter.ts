/** RequestAuthentication on a request under way: its tokens are judged, taken out, and their claims put into headers. */

import { type Jwk, parseJwks } from "../core/jose/jwk.ts";
import { type Authentication, authenticate, type CompiledTokens, type KeySource } from "../core/policy/authenticate.ts";
import type { TokenCarrier } from "../core/policy/token-places.ts";
import type { Exchange } from "./exchange.ts";

export interface TokenFilter {
  /** Changes the exchange as Envoy changes the request; a request that is refused stays as it is. */
  check(exchange: Exchange, nowMs: number): Authentication;
  readonly keysOf: KeySource;
}

/** Null where no token is ever looked at. */
export function tokenFilter(tokens: CompiledTokens, keySets: ReadonlyMap<string, string>): TokenFilter | null {
  if (tokens.providers.length === 0) {
    return null;
  }
  const own = [...new Set(tokens.providers.flatMap(({ ownHeaders }) => ownHeaders))];
  const looked = [
    ...new Set([
      ...["authorization", "cookie", "origin", "access-control-request-method"],
      ...tokens.providers.flatMap(({ places }) => places.headers.map(({ name }) => name)),
      ...own,
    ]),
  ];
  const parsed = new Map([...keySets].map(([uri, text]) => [uri, keysIn(text)]));
  const keysOf: KeySource = (uri) => parsed.get(uri) ?? null;
  const carrierOf = (exchange: Exchange): TokenCarrier => {
    const headers = new Map<string, readonly string[]>();
    for (const name of looked) {
      const lines = exchange.header(name);
      if (lines !== null) {
        headers.set(name, lines);
      }
    }
    return { method: exchange.head.method, path: exchange.path, headers };
  };
  return {
    keysOf,
    check(exchange, nowMs) {
      const carrier = carrierOf(exchange);
      const before = new Map(carrier.headers);
      // A forged copy of what only a token may say goes, also where nothing else is looked at.
      for (const name of own) {
        carrier.headers.delete(name);
      }
      const result = authenticate(tokens, carrier, nowMs, keysOf);
      if (result.ok) {
        apply(exchange, before, carrier);
      }
      return result;
    },
  };
}

function keysIn(text: string): readonly Jwk[] {
  try {
    return parseJwks(text).keys;
  } catch {
    return [];
  }
}

function apply(
  exchange: Exchange,
  before: ReadonlyMap<string, readonly string[]>,
  { headers, path }: TokenCarrier,
): void {
  for (const name of new Set([...before.keys(), ...headers.keys()])) {
    const [was, is] = [before.get(name), headers.get(name)];
    if (was !== is) {
      exchange.removeField(name);
      if (is !== undefined) {
        exchange.addField(name, is);
      }
    }
  }
  exchange.path = path ?? exchange.path;
}
