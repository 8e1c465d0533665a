/** Addresses that lead out of the machine and its networks: what a URL from somebody else may be fetched from. */
import { type Cidr, contains, type IpAddress, parseCidr, parseIp, unmapped } from "../core/base/cidr.ts";

/** SOURCE: the IANA special-purpose address registries; every block that is not globally reachable, or embeds such an address. */
const NOT_PUBLIC: readonly Cidr[] = [
  ...["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"],
  ...["192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"],
  ...[
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
  ],
  ...["2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"],
].map((block) => parseCidr(block) as Cidr);

/** Whether `address` is public, or in one of the blocks allowed besides. What is no address is neither. */
export function mayReach(address: string, allowed: readonly Cidr[]): boolean {
  const parsed = parseIp(address);
  if (parsed === null) {
    return false;
  }
  const plain: IpAddress = unmapped(parsed);
  return allowed.some((block) => contains(block, plain)) || !NOT_PUBLIC.some((block) => contains(block, plain));
}
