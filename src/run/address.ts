import { refined, type Shape, string } from "../core/base/validate.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** `host:port`, an IPv6 host in brackets; port 0 takes a free one. */
export function address(): Shape<Address> {
  return refined(string({ what: "an address `host:port`" }), (text, at) => {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(text);
    const number = Number(match?.[3]);
    if (match === null || number > 65_535) {
      return at.fault(`\`${text}\` is not an address`, "write it as `127.0.0.1:8081`");
    }
    return { host: match[1] ?? match[2] ?? "", port: number };
  });
}
