/** Group C: headers that two readers read differently. */
import assert from "node:assert/strict";
import {
  allow,
  allowed,
  decide,
  denied,
  deny,
  header,
  headFault,
  http,
  paths,
  type Row,
  refusesHeads,
} from "./scene.ts";

const START = ["GET / HTTP/1.1", "Host: shop"];
const role = deny(header("x-role", "admin"));
const lines = (...values: string[]) => http({ headers: { "x-role": values } });

export const HEADERS: readonly Row[] = [
  {
    id: "CVE-2019-9900",
    attack: "a NUL in a header's value: compared up to it, forwarded whole",
    answer: "400 and a closed connection",
    check: () => refusesHeads([...START, "x-role: admin\0x"], [...START, "x-\0: a"]),
  },
  {
    id: "CVE-2019-18802",
    attack: "whitespace behind a value: `admin ` is not `admin`",
    answer: "403: whitespace around a value is no part of it",
    check: () => denied([role], [lines("admin "), lines(" admin\t")]),
  },
  {
    id: "CVE-2020-25017",
    attack: "of several lines of a header only the first is compared",
    answer: "403: every line is",
    check: () => denied([role], [lines("user", "admin"), lines("", "admin"), lines("a", "b", "admin")]),
  },
  {
    id: "CVE-2021-32777",
    attack: "of several lines only the last reaches the external check",
    answer: "403: the first is compared like any other",
    check: () => denied([role], [lines("admin", "user"), lines("admin", "")]),
  },
  {
    id: "CVE-2026-26308",
    attack: "values are joined before they are compared: `admin` sent twice is `admin,admin`",
    answer: "403 for every header but the thirty that Envoy itself joins while it reads",
    check: () => {
      denied([role], [lines("admin", "admin"), lines("user", "admin")]);
      denied([allow({ when: [{ key: "request.headers[x-role]", notValues: ["admin"] }] })], [lines("user", "admin")]);
    },
  },
  {
    id: "CVE-2023-27491",
    attack: "line breaks and other control characters in a value split a request downstream",
    answer: "400: no control character passes, and values are written as they were read",
    check: () =>
      refusesHeads([...START, "x: a\x01"], [...START, "x: a\x7f"], [...START, "x: a\rb"], [...START, "x: a\nb: c"]),
  },
  {
    id: "CVE-2023-27493",
    attack: "header values taken from the certificate or the request are not validated before they are forwarded",
    answer: "identities are SPIFFE IDs, which have no such character; the policy sees the very bytes that go on",
    check: () => {
      assert.notEqual(headFault(...START, "x: a\0"), null);
      allowed([allow(header("x-role", "é"))], [lines("é")]);
    },
  },
  {
    id: "CVE-2024-45806",
    attack: "x-envoy headers of a client are believed because its address is private",
    answer: "no address confers trust: internal headers are taken away before any policy",
    check: () =>
      denied(
        [allow(header("x-envoy-internal", "*"))],
        [http({ headers: { "x-envoy-internal": ["true"] } }, { ip: "10.0.0.1" })],
      ),
  },
  {
    id: "CVE-2024-45808",
    attack: "a line break in the SNI forges a line of the access log",
    answer: "log lines are JSON, in which a line break is escaped; the SNI decides as text",
    check: () => {
      assert.ok(!JSON.stringify("a\nb").includes("\n"));
      denied(
        [allow({ when: [{ key: "connection.sni", values: ["shop"] }] })],
        [{ destination: { namespace: "prod", sni: "shop\n" } }],
        -1,
      );
    },
  },
  {
    id: "header smuggling",
    attack: "a space before the colon, obs-fold, an empty name",
    answer: "400 and a closed connection",
    check: () => refusesHeads([...START, "x : a"], [...START, "x: a", " b"], [...START, ": a"], [...START, "x"]),
  },
  {
    id: "hop-by-hop abuse",
    attack: "`Connection: x-forwarded-for` takes a header away that was decided on",
    answer: "400 for headers that tell of the client; others that are named are gone before the policy looks",
    check: () => {
      denied([], [http({ headers: { connection: ["x-forwarded-for"] } })], 400);
      const named = http({ headers: { connection: ["x-role"], "x-role": ["admin"] } });
      denied([allow(header("x-role", "*"))], [named]);
    },
  },
  {
    id: "forged client certificate header",
    attack: "x-forwarded-client-cert from a client that proved nothing",
    answer: "taken away: only mutual TLS writes it",
    check: () =>
      denied(
        [allow(header("x-forwarded-client-cert", "*"))],
        [http({ headers: { "x-forwarded-client-cert": ["URI=spiffe://cluster.local/ns/prod/sa/admin"] } })],
      ),
  },
  {
    id: "encoded NUL in a path",
    attack: "/admin%00.css",
    answer: "400",
    check: () => denied([deny(paths("/admin"))], [http({ path: "/admin%00.css" })], 400),
  },
  {
    id: "forged address",
    attack: "the client writes the first entry of X-Forwarded-For itself",
    answer: "only the last entry counts, and `ipBlocks` never looks at it",
    check: () => {
      const headers = { "x-forwarded-for": ["10.0.0.1, 198.51.100.1"] };
      denied([allow({ from: [{ source: { remoteIpBlocks: ["10.0.0.0/8"] } }] })], [http({ headers })]);
      assert.equal(
        decide([allow({ from: [{ source: { ipBlocks: ["10.0.0.0/8"] } }] })], http({ headers })).status,
        403,
      );
    },
  },
];
