/**
 * The rules of an isolated mesh, for nft. In a service's namespace its process can reach its own sidecar and nothing else; what
 * it dials is captured. Between namespaces only sidecars' mTLS ports pass. To the host only the control plane's port does.
 */
import { CAPTURE_INBOUND_PORT, CAPTURE_OUTBOUND_PORT, SIDECAR_METRICS_PORT } from "../configs.ts";

export interface ServiceFilter {
  readonly subnet: string;
  /** The host's address in the mesh's network. */
  readonly host: string;
  readonly xdsPort: number;
  readonly meshPort: number;
  readonly sidecarUid: number;
}

/** The interface of a service's namespace. */
export const INTERFACE = "eth0";
/** The hub's link to the host. */
export const UPLINK = "uplink";

/**
 * nft of one service's namespace. Hooks see the interface that was chosen before a redirect, so captured packets are told by
 * their new destination. Packets of sockets already closed have no owner: they pass as parts of a connection that was allowed.
 */
export function serviceRules({ subnet, host, xdsPort, meshPort, sidecarUid }: ServiceFilter): string {
  return `table inet everyhop {
  chain capture-in {
    type nat hook prerouting priority -100; policy accept;
    iifname "${INTERFACE}" tcp dport ${meshPort} redirect to :${CAPTURE_INBOUND_PORT}
  }
  chain capture-out {
    type nat hook output priority -100; policy accept;
    meta skuid ${sidecarUid} return
    oifname "lo" return
    meta nfproto ipv4 meta l4proto tcp redirect to :${CAPTURE_OUTBOUND_PORT}
  }
  chain output {
    type filter hook output priority 0; policy drop;
    oifname "lo" accept
    ip daddr 127.0.0.1 tcp dport ${CAPTURE_OUTBOUND_PORT} accept
    meta skuid != ${sidecarUid} reject with icmpx type admin-prohibited
    ct state established,related accept
    meta skuid ${sidecarUid} ip daddr ${host} tcp dport ${xdsPort} accept
    meta skuid ${sidecarUid} ip daddr ${host} drop
    meta skuid ${sidecarUid} ip daddr ${subnet} tcp dport ${CAPTURE_INBOUND_PORT} accept
  }
  chain input {
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ct state established,related accept
    iifname "${INTERFACE}" tcp dport ${CAPTURE_INBOUND_PORT} accept
    iifname "${INTERFACE}" ip saddr ${host} tcp dport ${SIDECAR_METRICS_PORT} accept
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
  }
}
`;
}

/** nft of the hub, where the links of all namespaces meet: a second wall, which no service's namespace can see. */
export function hubRules(xdsPort: number): string {
  return `table bridge everyhop {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ether type arp accept
    iifname "${UPLINK}" ip protocol tcp accept
    oifname "${UPLINK}" ip protocol tcp tcp dport ${xdsPort} accept
    oifname "${UPLINK}" ip protocol tcp tcp sport { ${CAPTURE_INBOUND_PORT}, ${SIDECAR_METRICS_PORT} } accept
    oifname "${UPLINK}" drop
    ip protocol tcp tcp dport ${CAPTURE_INBOUND_PORT} accept
    ip protocol tcp tcp sport ${CAPTURE_INBOUND_PORT} accept
  }
}
`;
}

/** nft of the host: from the mesh only the control plane is reached, and nothing is routed through. */
export function hostRules(table: string, link: string, xdsPort: number): string {
  return `table inet ${table} {
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "${link}" ct state established,related accept
    iifname "${link}" tcp dport ${xdsPort} accept
    iifname "${link}" drop
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname "${link}" drop
    oifname "${link}" drop
  }
}
`;
}
