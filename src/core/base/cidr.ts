/** IP addresses and CIDR blocks, read as Go's netip and compared as Envoy does: IPv4 and IPv6 never match each other. */
export interface IpAddress {
  readonly family: 4 | 6;
  /** 32-bit words, unsigned: one for IPv4, four for IPv6. */
  readonly words: readonly number[];
}

export interface Cidr extends IpAddress {
  readonly prefixLength: number;
}

/** Parses an address; null where it is none. Zones (`%eth0`) are accepted and ignored. */
export function parseIp(text: string): IpAddress | null {
  return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

/** An IPv4-mapped IPv6 address as the IPv4 address it is on a dual-stack socket. */
export function unmapped(address: IpAddress): IpAddress {
  const [first, second, third, last] = address.words;
  return address.family === 6 && first === 0 && second === 0 && third === 0xffff
    ? { family: 4, words: [last ?? 0] }
    : address;
}

/** Parses `10.0.0.0/8` or a single address. Bits behind the prefix are dropped. */
export function parseCidr(text: string): Cidr | null {
  const slash = text.indexOf("/");
  if (slash === -1) {
    const address = parseIp(text);
    return address === null ? null : { ...address, prefixLength: address.family === 4 ? 32 : 128 };
  }
  const [host, length] = [text.slice(0, slash), text.slice(slash + 1)];
  const address = host.includes("%") ? null : parseIp(host);
  if (address === null || !/^(0|[1-9]\d{0,2})$/.test(length)) {
    return null;
  }
  const prefixLength = Number(length);
  if (prefixLength > (address.family === 4 ? 32 : 128)) {
    return null;
  }
  return { family: address.family, words: maskWords(address.words, prefixLength), prefixLength };
}

export function maskWords(words: readonly number[], prefixLength: number): readonly number[] {
  return words.map((word, index) => {
    const bits = Math.min(Math.max(prefixLength - index * 32, 0), 32);
    return bits === 0 ? 0 : (word & (0xffffffff << (32 - bits))) >>> 0;
  });
}

/** HOT: no allocation. */
export function contains(block: Cidr, address: IpAddress): boolean {
  if (block.family !== address.family) {
    return false;
  }
  let bits = block.prefixLength;
  for (let index = 0; bits > 0; index++, bits -= 32) {
    const difference = (block.words[index] ?? 0) ^ (address.words[index] ?? 0);
    if (bits >= 32 ? difference !== 0 : difference >>> (32 - bits) !== 0) {
      return false;
    }
  }
  return true;
}

function parseIpv4(text: string): IpAddress | null {
  const parts = text.split(".");
  if (parts.length !== 4) {
    return null;
  }
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) {
      return null;
    }
    value = value * 256 + Number(part);
  }
  return { family: 4, words: [value] };
}

function parseIpv6(text: string): IpAddress | null {
  const zone = text.indexOf("%");
  if (zone === text.length - 1) {
    return null;
  }
  const bare = zone === -1 ? text : text.slice(0, zone);
  const halves = bare.split("::");
  if (halves.length > 2) {
    return null;
  }
  const head = groups(halves[0] ?? "", halves.length === 1);
  const tail = halves.length === 2 ? groups(halves[1] ?? "", true) : [];
  if (head === null || tail === null) {
    return null;
  }
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) {
    return null;
  }
  const all = [...head, ...new Array<number>(missing).fill(0), ...tail];
  const words = [0, 2, 4, 6].map((at) => (all[at] ?? 0) * 0x10000 + (all[at + 1] ?? 0));
  return { family: 6, words };
}

/** 16-bit groups; the last may be a dotted IPv4 address where `dotted` says so. */
function groups(text: string, dotted: boolean): number[] | null {
  if (text === "") {
    return [];
  }
  const result: number[] = [];
  const parts = text.split(":");
  for (const [index, part] of parts.entries()) {
    if (dotted && index === parts.length - 1 && part.includes(".")) {
      const address = parseIpv4(part);
      const word = address?.words[0];
      if (word === undefined) {
        return null;
      }
      result.push(word >>> 16, word & 0xffff);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      result.push(Number.parseInt(part, 16));
    } else {
      return null;
    }
  }
  return result;
}
