import { EveryhopError } from "../base/errors.ts";

declare const selector: unique symbol;

/** What an attestor found out, or an entry demands: `type:value`, as `unix:uid:0`. The type is what stands before the first colon. */
export type Selector = string & { readonly [selector]: true };

const MAX_SELECTOR_BYTES = 4096;

/** Why `text` is no selector; null where it is one. */
export function selectorFault(text: string): string | null {
  const colon = text.indexOf(":");
  if (colon <= 0 || colon === text.length - 1) {
    return "must be `type:value`, as in `unix:uid:1000`";
  }
  if (/[\s\p{Cc}]/u.test(text.slice(0, colon))) {
    return "the type has white space in it";
  }
  return text.length > MAX_SELECTOR_BYTES ? `is longer than ${MAX_SELECTOR_BYTES} characters` : null;
}

/** Errors: `invalid-argument`. */
export function parseSelector(text: string): Selector {
  const fault = selectorFault(text);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `\`${text}\` is not a selector: ${fault}`);
  }
  return text as Selector;
}

export function makeSelector(type: string, value: string): Selector {
  return parseSelector(`${type}:${value}`);
}

export function selectorType(of: Selector): string {
  return of.slice(0, of.indexOf(":"));
}

export function selectorValue(of: Selector): string {
  return of.slice(of.indexOf(":") + 1);
}

/** Whether an entry with `wanted` is for a workload (or node) with `found`: all that it demands was found. */
export function selectorsMatch(wanted: readonly Selector[], found: ReadonlySet<Selector>): boolean {
  return wanted.length > 0 && wanted.every((one) => found.has(one));
}
