/** Values of command line options, checked where they are given. */
import { InvalidArgumentError } from "commander";
import { parseDurationMs } from "../core/base/duration.ts";
import { selectorFault } from "../core/entries/selector.ts";
import { pathOf, type SpiffeId, spiffeIdFault, trustDomainFault, trustDomainOf } from "../core/spiffe/id.ts";

/** For an option that may be given several times. */
export function each<T>(read: (text: string) => T): (text: string, before: T[] | undefined) => T[] {
  return (text, before) => [...(before ?? []), read(text)];
}

export const text = (value: string): string => value;

export function spiffeId(value: string): SpiffeId {
  const fault = spiffeIdFault(value);
  if (fault !== null) {
    throw new InvalidArgumentError(
      `not a SPIFFE ID: ${fault}; write it as spiffe://example.com/ns/NAMESPACE/sa/ACCOUNT`,
    );
  }
  return value as SpiffeId;
}

/** `example.com`, or `spiffe://example.com`. */
export function trustDomain(value: string): string {
  const name = value.replace(/^spiffe:\/\//, "");
  const fault = trustDomainFault(name);
  if (fault !== null) {
    throw new InvalidArgumentError(`not a trust domain: ${fault}`);
  }
  return name;
}

export interface WireSelector {
  readonly type: string;
  readonly value: string;
}

export function selector(value: string): WireSelector {
  const fault = selectorFault(value);
  if (fault !== null) {
    throw new InvalidArgumentError(fault);
  }
  const colon = value.indexOf(":");
  return { type: value.slice(0, colon), value: value.slice(colon + 1) };
}

/** `name=value`. */
export function label(value: string): [string, string] {
  const equals = value.indexOf("=");
  if (equals <= 0) {
    throw new InvalidArgumentError("not a label: write it as `team=payments`");
  }
  return [value.slice(0, equals), value.slice(equals + 1)];
}

/** A duration such as `10m`, or a number of seconds as SPIRE takes it; in seconds. */
export function seconds(value: string): number {
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : parseDurationMs(value);
  if (ms === null || !Number.isSafeInteger(ms) || ms / 1_000 >= 2 ** 31) {
    throw new InvalidArgumentError("not a duration: write it as `90s`, `10m`, `1h30m`, or in seconds");
  }
  return Math.ceil(ms / 1_000);
}

/** A time as seconds since the epoch (as SPIRE takes it) or RFC 3339; in seconds. */
export function time(value: string): bigint {
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value);
  if (!Number.isSafeInteger(ms)) {
    throw new InvalidArgumentError("not a time: write it as `2030-01-31T12:00:00Z`, or in seconds since 1970");
  }
  return BigInt(Math.floor(ms / 1_000));
}

export function oneOf<T>(words: Readonly<Record<string, T>>): (value: string) => T {
  return (value) => {
    const found = Object.hasOwn(words, value) ? words[value] : undefined;
    if (found === undefined) {
      throw new InvalidArgumentError(`must be one of ${Object.keys(words).join(", ")}`);
    }
    return found;
  };
}

export function wireId(id: SpiffeId): { trustDomain: string; path: string } {
  return { trustDomain: trustDomainOf(id), path: pathOf(id) };
}

export function idOfWire(id: { readonly trustDomain: string; readonly path: string } | undefined): string {
  return id === undefined ? "" : `spiffe://${id.trustDomain}${id.path}`;
}

/** RFC 3339; null where it is 0. */
export function timeOfWire(value: bigint): string | null {
  return value === 0n ? null : new Date(Number(value) * 1_000).toISOString();
}

/** A duration such as `90s`, in milliseconds. */
export function duration(value: string): number {
  const ms = parseDurationMs(value);
  if (ms === null) {
    throw new InvalidArgumentError("not a duration: write it as `90s`, `10m` or `1h30m`");
  }
  return ms;
}

export function percent(value: string): number {
  const number = Number(value.replace(/%$/, ""));
  if (value.trim() === "" || !(number >= 0 && number <= 100)) {
    throw new InvalidArgumentError("not a percentage: a number from 0 to 100");
  }
  return number;
}

/** A whole number from 1 to a million. */
export function count(value: string): number {
  const number = Number(value);
  if (!(/^\d+$/.test(value) && number >= 1 && number <= 1_000_000)) {
    throw new InvalidArgumentError("not a number from 1 to 1000000");
  }
  return number;
}
