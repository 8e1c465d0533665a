/** The value an attribute has on a connection or request, as a policy would write it. */
import type { PeerFacts } from "./facts.ts";
import type { Attribute, HttpView } from "./tests.ts";

/** Null where the attribute is absent, or has no value that a policy can name exactly. */
export function actualValue(attribute: Attribute, peer: PeerFacts, view: HttpView | null): string | null {
  const value = rawValue(attribute, peer, view);
  return value === null || value === "" || value.startsWith("*") || value.endsWith("*") ? null : value;
}

function rawValue(attribute: Attribute, peer: PeerFacts, view: HttpView | null): string | null {
  switch (attribute.kind) {
    case "source.principal":
      return peer.principal;
    case "source.namespace":
      return segmentAfter(peer.principal, "ns");
    case "source.serviceAccount": {
      const [namespace, account] = [segmentAfter(peer.principal, "ns"), segmentAfter(peer.principal, "sa")];
      return namespace === null || account === null ? null : `${namespace}/${account}`;
    }
    case "source.trustDomain":
      return peer.principal?.split("/")[0] ?? null;
    case "source.ip":
      return peer.sourceIp;
    case "remote.ip":
      return view?.facts.remoteIp ?? peer.remoteIp;
    case "destination.ip":
      return peer.destinationIp;
    case "destination.port":
      return peer.destinationPort < 0 ? null : String(peer.destinationPort);
    case "connection.sni":
      return peer.sni?.toLowerCase() ?? null;
    case "hosts":
      return view?.facts.host ?? null;
    case "methods":
      return view?.facts.method ?? null;
    case "paths":
      return view?.path ?? null;
    case "header":
      return attribute.name === null ? null : headerValue(attribute.name, view);
    case "claim":
      return attribute.path === null ? null : claimValue(attribute.path, view);
    case "request.auth.audiences":
      return claimValue(["aud"], view);
    case "request.auth.presenter":
      return claimValue(["azp"], view);
    case "request.auth.principal": {
      const [issuer, subject] = [claimValue(["iss"], view), claimValue(["sub"], view)];
      return issuer === null || subject === null ? null : `${issuer}/${subject}`;
    }
    case "metadata":
      return null;
  }
}

function segmentAfter(principal: string | null, name: string): string | null {
  const segments = principal?.split("/") ?? [];
  const at = segments.indexOf(name, 1);
  return at === -1 ? null : (segments[at + 1] ?? null);
}

function headerValue(name: string, view: HttpView | null): string | null {
  if (name === "host" || name === ":authority") {
    return view?.facts.host ?? null;
  }
  const wire = view?.facts.header(name)?.[0];
  return wire === undefined ? null : new TextDecoder().decode(Uint8Array.from(wire, (char) => char.charCodeAt(0)));
}

function claimValue(path: readonly string[], view: HttpView | null): string | null {
  let value: unknown = view?.facts.auth ?? null;
  for (const name of path) {
    value =
      typeof value === "object" && value !== null && Object.hasOwn(value, name)
        ? (value as Record<string, unknown>)[name]
        : null;
  }
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === "string" ? first : null;
}
