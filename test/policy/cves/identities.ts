/** Group D: who is at the other end. */
import assert from "node:assert/strict";
import { EKU } from "../../../src/core/x509/extensions.ts";
import { NOW } from "../../../src/core/x509/fixture.ts";
import { allow, allowed, certificate, decide, denied, deny, from, http, ID, type Row } from "./scene.ts";

const as = (principal: string) => http({}, { principal });
const overTcp = (principal?: string) => ({ source: principal === undefined ? {} : { principal } });

export const IDENTITIES: readonly Row[] = [
  {
    id: "CVE-2020-16844",
    attack: "a DENY with the suffix principal */sa/bad is compared as an exact value on TCP",
    answer: "closed: all string forms mean the same on TCP and HTTP",
    check: () => {
      const policies = [deny(from({ principals: ["*/sa/bad"] }))];
      denied(policies, [overTcp("a.td/ns/x/sa/bad")], -1);
      denied(policies, [as("a.td/ns/x/sa/bad")]);
    },
  },
  {
    id: "ISTIO-SECURITY-2021-004",
    attack: "fields that need mutual TLS, on a plaintext connection",
    answer: "positive fields are false, negations true, as Istio has it; DENY notPrincipals [*] requires mutual TLS",
    check: () => {
      denied([allow(from({ principals: ["*"] }))], [http({})]);
      denied([allow(from({ principals: ["*"] }))], [overTcp()], -1);
      denied([deny(from({ notPrincipals: ["*"] }))], [http({})]);
      denied([deny(from({ notPrincipals: ["*"] }))], [overTcp()], -1);
    },
  },
  {
    id: "CVE-2020-15104",
    attack: "a wildcard DNS name spans several labels",
    answer: "DNS names identify nobody here, with or without wildcard",
    check: () => assert.equal(certificate({ uris: [], dnsNames: ["*.example.com"] }), "no-spiffe-id"),
  },
  {
    id: "CVE-2022-21656",
    attack: "a name of one type is taken for one of another (a DNS name that spells a URI)",
    answer: "only names of type URI are read",
    check: () => assert.equal(certificate({ uris: [], dnsNames: [ID] }), "no-spiffe-id"),
  },
  {
    id: "CVE-2022-21657",
    attack: "a certificate for another purpose (email) is taken for one for TLS",
    answer: "refused",
    check: () => assert.notEqual(certificate({ purposes: ["1.3.6.1.5.5.7.3.4"] }), "ok"),
  },
  {
    id: "CVE-2022-21654",
    attack: "a resumed session skips validation under a changed context",
    answer: "no session is resumed (src/proxy/identity.test.ts); purposes are checked at each handshake",
    check: () => assert.equal(certificate({ purposes: [EKU.serverAuth, EKU.clientAuth] }), "ok"),
  },
  {
    id: "CVE-2025-66220",
    attack: "a NUL in a name: good.example\\0.evil",
    answer: "refused",
    check: () => assert.equal(certificate({ uris: [`${ID}\0.evil`] }), "no-spiffe-id"),
  },
  {
    id: "CVE-2026-47778",
    attack: "the same in a DNS name beside the URI",
    answer: "DNS names are not read",
    check: () => assert.equal(certificate({ dnsNames: ["a\0b"] }), "ok"),
  },
  {
    id: "CVE-2026-39350",
    attack: "serviceAccounts [b.c/d.e] also matches bxc/dxe: the dot is a wildcard",
    answer: "403: names are compared as text; no pattern of a user becomes a regular expression",
    check: () =>
      denied([allow(from({ serviceAccounts: ["b.c/d.e"] }))], [as("t/ns/bxc/sa/d.e"), as("t/ns/b.c/sa/dxe")]),
  },
  {
    id: "istio note 59992",
    attack: "the same in namespaces and principals: team.a matches team-a",
    answer: "403",
    check: () => {
      denied([allow(from({ namespaces: ["team.a"] }))], [as("t/ns/team-a/sa/x")]);
      denied([allow(from({ principals: ["*.td/ns/a/sa/b"] }))], [as("xtd/ns/a/sa/b")]);
    },
  },
  {
    id: "Subject instead of SAN",
    attack: "no URI name: Envoy falls back to DNS names and the subject",
    answer: "refused: exactly one URI name, nothing else",
    check: () => {
      assert.equal(certificate({ uris: [] }), "no-spiffe-id");
      assert.equal(certificate({ uris: [ID, "spiffe://example.com/other"] }), "several-uri-names");
    },
  },
  {
    id: "istio note 59768",
    attack: "a leaf outlives its CA",
    answer: "refused once the CA has expired, whatever the leaf says",
    check: () => assert.notEqual(certificate({ notAfterMs: NOW - 1 }), "ok"),
  },
  {
    id: "foreign trust domain",
    attack: "an identity of another trust domain signed by our CA",
    answer: "refused: each identity is checked against the bundle of its own trust domain",
    check: () => assert.notEqual(certificate({ uris: ["spiffe://other.test/ns/a/sa/b"] }), "ok"),
  },
  {
    id: "cluster.local of another mesh",
    attack: "the literal cluster.local identity where the policy means the local trust domain",
    answer: "403: a principal of cluster.local means the mesh's own domain, and that alone",
    check: () => {
      const policies = [allow(from({ principals: ["cluster.local/ns/a/sa/b"] }))];
      assert.equal(decide(policies, as("evil.td/ns/a/sa/b")).status, 403);
      allowed(policies, [as("cluster.local/ns/a/sa/b")]);
    },
  },
];
