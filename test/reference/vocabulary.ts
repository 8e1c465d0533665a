/** The words random policies and requests are made of: few, so that they meet, and each one with odd neighbours. */
import type { Random } from "./random.ts";

export const TRUST_DOMAINS = ["cluster.local", "example.com", "other.td", "a.td", "examine.org"];
export const NAMESPACES = ["prod", "a", "team.a", "team-a", "istio-system", "x"];
export const ACCOUNTS = ["web", "api", "d.e", "web2", "z"];

/** Identities as certificates carry them, without `spiffe://`. */
export const PRINCIPALS: readonly string[] = [
  ...TRUST_DOMAINS.flatMap((domain) =>
    ["prod/sa/web", "a/sa/api", "team.a/sa/d.e"].map((rest) => `${domain}/ns/${rest}`),
  ),
  "cluster.local/ns/prod-eu/sa/web",
  "cluster.local/ns/team-a/sa/dxe",
  "cluster.local/ns/istio-system/sa/api",
  "cluster.local/region/eu/ns/prod/sa/web",
  "cluster.local/ns/a/ns/prod/sa/web",
  "cluster.local/ns/prod",
  "cluster.local/ns/a/sub/x/sa/api",
  "cluster.local/ns/a/sa/api/extra",
  "cluster.local/ns/aa/sa/api2",
  "cluster.local/ns/x/sa/z/more",
  "ns/ns/prod/sa/web",
  "ns/prod/sa/web",
  "bob.td/workload",
  "x.d/x.c/ns/x/sa/y",
  "cluster.local/sa/web/ns/prod/x",
];

export const PATHS = [
  "/",
  "/a",
  "/a/b",
  "/api",
  "/api/v1/items",
  "/admin",
  "//admin",
  "/a%2Fb",
  "/a%2fb",
  "/a%5Cb",
  "/a*b",
  "/x;v=1",
  "/x.css",
  "/A",
  "/t/x",
  "/t/x/u",
  "/t/x/u/v",
  "/t/x/end",
  "/t/",
  "/t",
  "/a%20b",
  "/a%22b",
  "/~u",
  "/a..b",
  "/..;/a",
  "/%25Ab",
  "/a=b",
  "/k[l",
];

export const TEMPLATES = [
  "/t/{*}",
  "/t/{**}",
  "/{*}",
  "/{**}",
  "/{*}/u",
  "/t/{*}/u/{*}",
  "/t/{*}/{**}",
  "/t/{**}/end",
  "/a.b/{*}",
  "/t/{*}/",
  "/{*}/{*}",
  "/api/{*}/items",
];

export const METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "PROPFIND"];
export const HOSTS = [
  "shop",
  "shop.prod",
  "shop.prod:8080",
  "SHOP.prod",
  "api.example.com",
  "api.example.com.",
  "[::1]:80",
  "a b",
  "x_y,z",
];

/** Names a policy may ask for and a request may carry. */
export const HEADERS = [
  "x-a",
  "x-b",
  "x-role",
  "accept",
  "user-agent",
  "cookie",
  "accept-language",
  "origin",
  "x-group",
];
export const HEADER_VALUES = ["a", "b", "ab", "a,b", "admin", "user", "", "a b", "admin,user", "A", "*", "a*", "é"];

export const IP_BLOCKS = [
  "127.0.0.1",
  "127.0.1.0/24",
  "127.0.1.77/25",
  "127.0.0.0/8",
  "0.0.0.0/0",
  "203.0.113.0/24",
  "203.0.113.7",
  "10.0.0.1/8",
  "::/0",
  "::1",
  "2001:db8::/32",
  "::ffff:203.0.113.7",
  "::ffff:127.0.0.1",
  "::ffff:0:0/96",
];
export const SOURCE_IPS = ["127.0.0.1", "127.0.1.2", "127.0.1.200", "127.0.2.2"];
export const REMOTE_IPS = [
  "203.0.113.7",
  "203.0.113.9",
  "10.1.2.3",
  "2001:db8::1",
  "::ffff:203.0.113.7",
  "127.0.1.3",
  "::1",
];

export const ISSUERS = ["https://i.example/r", "https://i.example", "issuer", "i"];
export const SUBJECTS = ["alice", "bob", "r/alice", "*", "al", ""];
export const CLAIMS = ["groups", "scope", "permission", "role", "n", "realm", "a.b", "aud", "iss"];
export const CLAIM_VALUES = ["admin", "read", "read write", "x", "7", "true", "", "*", "adm", "ädmin"];
export const SNIS = ["shop.prod", "other.prod", "Upper.prod", "a.example.com"];

/** A pattern that has to do with `value`: the value, its beginning, its end, or something beside it. */
export function patternOf(random: Random, value: string): string {
  const at = random.int(0, value.length);
  switch (
    random.weighted({ exact: 46, prefix: 16, suffix: 16, presence: 6, near: 8, middle: 3, both: 3, doubled: 1, end: 1 })
  ) {
    case "exact":
      return value || "x";
    case "prefix":
      return `${value.slice(0, at)}*`;
    case "suffix":
      return `*${value.slice(at)}`;
    case "presence":
      return "*";
    case "near":
      return near(random, value) || "x";
    case "middle":
      return `${value.slice(0, at)}*${value.slice(at + 1)}`;
    case "both":
      return `*${value.slice(1)}*`;
    case "doubled":
      return "**";
    case "end":
      return `${value}**`;
  }
}

/** Almost `value`. */
export function near(random: Random, value: string): string {
  const at = random.int(0, Math.max(value.length - 1, 0));
  switch (random.int(0, 5)) {
    case 0:
      return value.slice(0, -1);
    case 1:
      return `${value}x`;
    case 2:
      return value.toUpperCase();
    case 3:
      return value.slice(1);
    case 4:
      return `${value.slice(0, at)}x${value.slice(at + 1)}`;
    default:
      return `x${value}`;
  }
}

/** A value that the pattern means to match. */
export function instanceOf(random: Random, pattern: string): string {
  const filled = pattern
    .replaceAll("{**}", () => random.pick(["", "x", "x/y", "x//y/"]))
    .replaceAll("{*}", () => random.pick(["x", "x=1", "a.b", "%2F", "a*b"]));
  const middle = random.pick(["", "x", "/x", "ab"]);
  if (filled === "*") {
    return random.pick(["", "a", "ab/c"]);
  }
  if (filled.startsWith("*")) {
    return middle + filled.slice(1);
  }
  return filled.endsWith("*") ? filled.slice(0, -1) + middle : filled;
}
