/** Between SPIRE's messages and our values. */
import { EveryhopError } from "../../core/base/errors.ts";
import { makeSelector, type Selector, selectorType, selectorValue } from "../../core/entries/selector.ts";
import { pathOf, type SpiffeId, spiffeIdFault, trustDomainOf } from "../../core/spiffe/id.ts";

export const seconds = (ms: number | null): bigint => BigInt(Math.floor((ms ?? 0) / 1_000));
export const milliseconds = (s: bigint | number): number => Number(s) * 1_000;

export interface WireId {
  readonly trustDomain: string;
  readonly path: string;
}

export function idToWire(id: SpiffeId): { trustDomain: string; path: string } {
  return { trustDomain: trustDomainOf(id), path: pathOf(id) };
}

/** The text of a SPIFFE ID message, not yet checked. A path without its leading slash gets one. */
export function idText(id: WireId | undefined): string {
  if (id === undefined) {
    return "";
  }
  const trustDomain = id.trustDomain.replace(/^spiffe:\/\//, "");
  return `spiffe://${trustDomain}${id.path === "" || id.path.startsWith("/") ? id.path : `/${id.path}`}`;
}

/** Errors: `invalid-argument`, with `what` it was for. */
export function idFromWire(id: WireId | undefined, what: string): SpiffeId {
  if (id === undefined) {
    throw new EveryhopError("invalid-argument", `${what} is missing`);
  }
  const text = idText(id);
  const fault = spiffeIdFault(text);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `${what} \`${text.slice(0, 256)}\` is not a SPIFFE ID: ${fault}`);
  }
  return text as SpiffeId;
}

export function selectorToWire(selector: Selector): { type: string; value: string } {
  return { type: selectorType(selector), value: selectorValue(selector) };
}

/** Errors: `invalid-argument`. SPEC: SPIRE: neither part empty, no colon in the type. */
export function selectorFromWire({ type, value }: { readonly type: string; readonly value: string }): Selector {
  if (type.includes(":")) {
    throw new EveryhopError("invalid-argument", `selector type \`${type.slice(0, 128)}\` contains a colon`);
  }
  return makeSelector(type, value);
}

type Mask = { readonly $typeName: string };

/** `message` with what `mask` does not name left out. No mask names everything; `always` is in any answer. */
export function masked<T extends object>(message: T, mask: Mask | undefined, always: readonly (keyof T)[]): Partial<T> {
  if (mask === undefined) {
    return message;
  }
  const kept = Object.entries(message).filter(
    ([field]) => always.includes(field as keyof T) || (mask as unknown as Record<string, unknown>)[field] === true,
  );
  return Object.fromEntries(kept) as Partial<T>;
}

/** Whether `mask` names `field`; no mask names everything. */
export function names(mask: Mask | undefined, field: string): boolean {
  return mask === undefined || (mask as unknown as Record<string, unknown>)[field] === true;
}

/**
 * One page of what is in order of `key`: after the token, at most `pageSize` (0: all). The token of the next page is the key
 * of the last item; empty at the end.
 */
export function page<T>(
  items: readonly T[],
  key: (item: T) => string,
  pageSize: number,
  token: string,
): { readonly items: readonly T[]; readonly nextPageToken: string } {
  const rest = token === "" ? items : items.filter((item) => key(item) > token);
  if (pageSize <= 0 || rest.length <= pageSize) {
    return { items: rest, nextPageToken: "" };
  }
  const shown = rest.slice(0, pageSize);
  return { items: shown, nextPageToken: key(shown.at(-1) as T) };
}
