import { HOST } from "./chars.ts";
import type { RequestHead } from "./request-head.ts";

const SLASH = 0x2f;

/**
 * The path and query of a request's target. An absolute target's authority takes the place of `Host`. Null: the target is of no
 * form that a service is asked by. SPEC: RFC 9112 §3.2.
 */
export function splitTarget(head: RequestHead): string | null {
  const { target } = head;
  if (target.charCodeAt(0) === SLASH) {
    return target;
  }
  if (target === "*") {
    return head.method === "OPTIONS" ? target : null;
  }
  const parts = /^https?:\/\/([^/?#]+)([/?#].*)?$/i.exec(target);
  const authority = parts?.[1];
  if (authority === undefined || ![...authority].every((char) => HOST[char.charCodeAt(0)] === 1)) {
    return null;
  }
  const rest = parts?.[2] ?? "/";
  if (rest.charCodeAt(0) !== SLASH) {
    return null;
  }
  head.replaceHost(authority);
  return rest;
}
