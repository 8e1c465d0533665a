/** Which upstream a captured connection means. */
import { isIPv6, SocketAddress } from "node:net";
import type { Upstream } from "../core/api/snapshot.ts";
import { type Address, parseAddress } from "../io/net.ts";

/** One spelling for each address. */
function canonical(host: string): string {
  return isIPv6(host) ? new SocketAddress({ address: host, family: "ipv6" }).address : host;
}

/**
 * The upstream that `destination` belongs to: one of its inbound listeners, or one of their hosts at the service's port in the
 * mesh. Null where none does, or where two would (several services behind one address are told apart by their port alone).
 */
export function capturedUpstream(destination: Address, upstreams: readonly Upstream[]): Upstream | null {
  const host = canonical(destination.host);
  const matches = (byPort: (upstream: Upstream, endpoint: Address) => boolean) =>
    upstreams.filter((upstream) =>
      upstream.endpoints.some((text) => {
        const endpoint = parseAddress(text);
        return endpoint !== null && canonical(endpoint.host) === host && byPort(upstream, endpoint);
      }),
    );
  const exact = matches((_upstream, endpoint) => endpoint.port === destination.port);
  const found = exact.length > 0 ? exact : matches((upstream) => upstream.port === destination.port);
  return found.length === 1 ? (found[0] as Upstream) : null;
}

/**
 * RACE: where a NAT table is loaded, a connection that was not redirected says that it wanted to go to us. Following it would
 * dial ourselves for ever.
 */
export function isOwnListener(destination: Address, own: readonly Address[]): boolean {
  const host = canonical(destination.host);
  const anyHost = (listener: string) => listener === "0.0.0.0" || listener === "::";
  return own.some(
    ({ host: listener, port }) => port === destination.port && (anyHost(listener) || canonical(listener) === host),
  );
}
