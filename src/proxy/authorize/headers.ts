import type { Check } from "./check.ts";

/** Text as it is on the wire, read as UTF-8. */
export const wireText = (text: string): string => Buffer.from(text, "latin1").toString("utf8");

/**
 * The request's headers as Envoy tells them to authorizers: lines of one name are joined; the pseudo-headers of HTTP/2 are
 * there for every version.
 */
export function headersOf({ request }: Check): Record<string, string> {
  const headers: Record<string, string> = Object.create(null);
  if (request === null) {
    return headers;
  }
  for (const [name, value] of request.headers) {
    if (name !== "host") {
      const text = wireText(value);
      const before = headers[name];
      headers[name] = before === undefined ? text : `${before}${name === "cookie" ? "; " : ","}${text}`;
    }
  }
  headers[":authority"] = request.host;
  headers[":method"] = request.method;
  headers[":path"] = wireText(request.path);
  headers[":scheme"] = request.scheme;
  if (request.body !== null) {
    headers["x-envoy-auth-partial-body"] = String(request.body.isPartial);
  }
  return headers;
}
