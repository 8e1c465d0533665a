/** Groups A and B: paths, URLs and hosts spelled in another way. */
import assert from "node:assert/strict";
import {
  allow,
  allowed,
  decide,
  denied,
  deny,
  header,
  headFault,
  hosts,
  http,
  paths,
  type Row,
  refusesHeads,
} from "./scene.ts";

const admin = deny(paths("/admin", "/admin/*"));
const asked = (...all: string[]) => all.map((path) => http({ path }));

export const PATHS_AND_HOSTS: readonly Row[] = [
  {
    id: "CVE-2019-9901",
    attack: "/a/../admin and /./admin go around a rule for /admin",
    answer: "403: the path is normalised before it is decided on, and forwarded so",
    check: () => denied([admin], asked("/a/../admin", "/./admin", "/a/%2e%2e/admin", "/%61dmin", "/a/..;/admin")),
  },
  {
    id: "CVE-2020-8595",
    attack: "a query or fragment behind an exact path that needs a token",
    answer: "403: neither is part of the path that is compared",
    check: () => denied([admin], asked("/admin?x", "/admin#x", "/admin?", "/admin#x?y")),
  },
  {
    id: "CVE-2021-31920",
    attack: "//admin, where the service takes it for /admin",
    answer:
      "403 under MERGE_SLASHES, and the merged path is forwarded; under BASE it is another path, which ALLOW policies do not allow",
    check: () => {
      denied([admin], asked("//admin", "/x/..//admin"), 403, { pathNormalization: "MERGE_SLASHES" });
      denied([allow(paths("/public/*"))], asked("//admin"));
    },
  },
  {
    id: "CVE-2021-29492",
    attack: "/a%2Fadmin and /a%5Cadmin, where the service decodes them",
    answer: "403 under DECODE_AND_MERGE_SLASHES, and the decoded path is forwarded",
    check: () => {
      const mode = { pathNormalization: "DECODE_AND_MERGE_SLASHES" } as const;
      denied([deny(paths("/a/admin"))], asked("/a%2Fadmin", "/a%5cadmin", "/a%2f%2Fadmin"), 403, mode);
      assert.equal(decide([], http({ path: "/a%2Fb" }), mode).path, "/a/b");
    },
  },
  {
    id: "CVE-2021-39156",
    attack: "/admin#fragment is decided on with its fragment",
    answer: "403: the fragment is cut off before the decision and never forwarded",
    check: () => {
      denied([admin], asked("/admin#", "/admin#/public"));
      assert.equal(decide([], http({ path: "/a#b" })).path, "/a");
    },
  },
  {
    id: "CVE-2021-32779",
    attack: "the same in front of a router: /public#/../admin",
    answer: "what is behind # decides nothing and is not forwarded",
    check: () => assert.equal(decide([], http({ path: "/public#/../admin" })).path, "/public"),
  },
  {
    id: "CVE-2025-46821",
    attack: "a segment with * is not matched by the template of a DENY",
    answer: "403: {*} and {**} take a star",
    check: () => denied([deny(paths("/files/{*}", "/all/{**}"))], asked("/files/a*b", "/files/*", "/all/*/x")),
  },
  {
    id: "CVE-2023-27487",
    attack: "a forged x-envoy-original-path, believed by whatever reads it later",
    answer: "the header decides nothing about the path: the request line alone does",
    check: () => denied([admin], [http({ path: "/admin", headers: { "x-envoy-original-path": ["/public"] } })]),
  },
  {
    id: "CVE-2023-35944",
    attack: "HTTP://shop/admin: a scheme in mixed case goes around what looks for http://",
    answer: "403: schemes are compared without case, and the target's own path decides",
    check: () => denied([admin], asked("HTTP://shop/admin", "hTtPs://shop/x/../admin")),
  },
  {
    id: "CVE-2021-39155",
    attack: "Host: ADMIN.example.com goes around a rule for admin.example.com",
    answer: "403: hosts are compared without case",
    check: () => denied([deny(hosts("admin.example.com"))], [http({ host: "ADMIN.Example.COM" })]),
  },
  {
    id: "ISTIO-SECURITY-2021-008",
    attack: "Host: admin.example.com:8080 goes around a DENY by host",
    answer:
      "as Istio decides it: write `host` and `host:*` both; ALLOW by host is not gone around; the lint host-without-port says so",
    check: () => {
      denied([deny(hosts("admin.example.com", "admin.example.com:*"))], [http({ host: "admin.example.com:8080" })]);
      denied([allow(hosts("shop"))], [http({ host: "shop:8080" })]);
    },
  },
  {
    id: "CVE-2019-18838",
    attack: "a request without Host crashes the proxy",
    answer: "400",
    check: () => {
      denied([], [http({ host: null })], 400);
      refusesHeads(["GET / HTTP/1.1"], ["GET / HTTP/1.1", "X: y"], ["GET / HTTP/1.1", "Host: a", "Host: b"]);
    },
  },
  {
    id: "CVE-2022-21679",
    attack: "a control plane and proxies of two versions read a host pattern differently",
    answer:
      "the control plane sends the resource itself, and sidecars compile it with the code that `policy decide` runs",
    check: () => allowed([allow(hosts("SHOP"), header(":authority", "shop"))], [http({ host: "shop" })]),
  },
  {
    id: "invalid authority",
    attack: "userinfo, a port beyond 65535, spaces or slashes where a host is read",
    answer: "400, and userinfo is never part of the host",
    check: () => {
      denied(
        [],
        ["http://a:65536/", "http://a b/", "http://a@b@c/"].map((path) => http({ path })),
        400,
      );
      denied([allow(hosts("*"))], [http({ host: "a/b" })], 400);
      denied([deny(hosts("admin"))], [http({ path: "http://public@admin/" })]);
      assert.notEqual(headFault("GET / HTTP/1.1", "Host: a/b"), null);
    },
  },
];
