/**
 * Where a JWT rule looks for tokens, and how a token is taken out of the request again.
 * SOURCE: envoy source/extensions/filters/http/jwt_authn/extractor.cc.
 */
import type { JwtRule } from "./resources.ts";

/** The part of a request that tokens are found in and that validating them changes. All wire text. */
export interface TokenCarrier {
  readonly method: string | null;
  path: string | null;
  /** By lower-case name. */
  readonly headers: Map<string, readonly string[]>;
}

export interface FoundToken {
  readonly token: string;
  /** Takes it out of the request; cookies stay, as in Envoy. */
  remove(carrier: TokenCarrier): void;
}

interface HeaderPlace {
  readonly name: string;
  readonly prefix: string;
}

export interface TokenPlaces {
  readonly headers: readonly HeaderPlace[];
  readonly params: readonly string[];
  readonly cookies: readonly string[];
}

const DEFAULT_PLACES: TokenPlaces = {
  headers: [{ name: "authorization", prefix: "Bearer " }],
  params: ["access_token"],
  cookies: [],
};

/** Naming any place replaces the default ones. */
export function tokenPlaces(rule: JwtRule): TokenPlaces {
  if (rule.fromHeaders.length + rule.fromParams.length + rule.fromCookies.length === 0) {
    return DEFAULT_PLACES;
  }
  const headers = rule.fromHeaders.map(({ name, prefix }) => ({ name: name.toLowerCase(), prefix }));
  return {
    headers: distinct(headers, ({ name, prefix }) => name + prefix),
    params: distinct(rule.fromParams, (name) => name),
    cookies: distinct(rule.fromCookies, (name) => name),
  };
}

/** In the order of their keys, as Envoy keeps them. */
function distinct<T>(items: readonly T[], keyOf: (item: T) => string): readonly T[] {
  const byKey = new Map(items.map((item) => [keyOf(item), item]));
  return [...byKey].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
}

/** Every token at these places. */
export function findTokens(carrier: TokenCarrier, places: TokenPlaces): readonly FoundToken[] {
  return [...inHeaders(carrier, places), ...inParams(carrier, places), ...inCookies(carrier, places)];
}

const TOKEN_START = /[A-Za-z0-9_.-]/;

function inHeaders(carrier: TokenCarrier, places: TokenPlaces): FoundToken[] {
  return places.headers.flatMap(({ name, prefix }) =>
    (carrier.headers.get(name) ?? []).flatMap((value): FoundToken[] => {
      const at = value.indexOf(prefix);
      if (at === -1) {
        return [];
      }
      const rest = value.slice(at + prefix.length);
      const start = prefix === "" ? 0 : rest.search(TOKEN_START);
      const token = start === -1 ? value : rest.slice(start);
      return [{ token, remove: ({ headers }) => headers.delete(name) }];
    }),
  );
}

function inParams(carrier: TokenCarrier, places: TokenPlaces): FoundToken[] {
  const params = queryParams(carrier.path);
  return places.params.flatMap((name): FoundToken[] => {
    const token = params.find(([key]) => key === name)?.[1];
    return token === undefined ? [] : [{ token, remove: (from) => removeParam(from, name) }];
  });
}

function queryParams(path: string | null): readonly (readonly [string, string])[] {
  const query = path === null ? -1 : path.indexOf("?");
  if (path === null || query === -1) {
    return [];
  }
  return path
    .slice(query + 1)
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair): readonly [string, string] => {
      const equals = pair.indexOf("=");
      return equals === -1
        ? [decodePercent(pair), ""]
        : [decodePercent(pair.slice(0, equals)), decodePercent(pair.slice(equals + 1))];
    });
}

const decodePercent = (text: string): string =>
  text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));

/** Envoy writes the rest of the query anew: by name, and decoded. */
function removeParam(carrier: TokenCarrier, name: string): void {
  const { path } = carrier;
  if (path === null) {
    return;
  }
  const kept = queryParams(path).filter(([key]) => key !== name);
  kept.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const query = kept.map(([key, value]) => `${key}=${value}`).join("&");
  carrier.path = path.slice(0, path.indexOf("?")) + (query === "" ? "" : `?${query}`);
}

function inCookies(carrier: TokenCarrier, places: TokenPlaces): FoundToken[] {
  const cookies = new Map<string, string>();
  for (const pair of (carrier.headers.get("cookie") ?? []).flatMap((line) => line.split(";"))) {
    const equals = pair.indexOf("=");
    const name = pair.slice(0, equals).trim();
    if (equals !== -1 && !cookies.has(name)) {
      cookies.set(name, unquoted(pair.slice(equals + 1).trim()));
    }
  }
  return places.cookies.flatMap((name): FoundToken[] => {
    const token = cookies.get(name);
    return token === undefined ? [] : [{ token, remove: () => {} }];
  });
}

const unquoted = (value: string): string =>
  value.length >= 2 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
