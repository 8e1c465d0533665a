/** Group F: routing and tenants. */
import assert from "node:assert/strict";
import { allow, decide, denied, deny, headFault, http, paths, policy, type Row, refusesHeads } from "./scene.ts";

const START = ["POST / HTTP/1.1", "Host: shop"];

export const TENANTS: readonly Row[] = [
  {
    id: "CVE-2020-11767",
    attack: "a coalesced HTTP/2 connection carries requests for another host",
    answer: "each request is decided by its own host, whatever the connection was opened for",
    check: () =>
      denied(
        [deny({ to: [{ operation: { hosts: ["admin"] } }] })],
        [{ ...http({ host: "admin" }), destination: { namespace: "prod", sni: "public" } }],
      ),
  },
  {
    id: "ISTIO-SECURITY-2021-002",
    attack: "a gateway's port 80 is 8080 in the pod: a rule for 80 does not match",
    answer: "`ports` are ports in the mesh, everywhere; a rule for another port allows nothing",
    check: () => denied([allow({ to: [{ operation: { ports: ["80"] } }] })], [http({})]),
  },
  {
    id: "CVE-2021-31921",
    attack: "AUTO_PASSTHROUGH of a gateway reaches services past their policies",
    answer:
      "no gateway passes through: the destination's sidecar decides, and TLS it cannot end is refused under STRICT",
    check: () => {
      const strict = { ...policy({ mtls: { mode: "STRICT" } }), kind: "PeerAuthentication" };
      denied([strict], [{ destination: { namespace: "prod", sni: "outbound_.80_._.shop" } }], -1);
    },
  },
  {
    id: "ISTIO-SECURITY-2026-002",
    attack: "a VirtualService of one tenant takes the traffic of another",
    answer:
      "no surface: there are no VirtualServices; a policy outside the root namespace selects its own namespace alone",
    check: () =>
      assert.equal(decide([policy({ action: "DENY", rules: [{}] }, { namespace: "evil" })], http({})).status, 200),
  },
  {
    id: "CVE-2021-34824",
    attack: "credentialName reads the secret of another namespace",
    answer: "no surface: no resource names a secret; a target in another namespace is refused",
    check: () =>
      assert.equal(
        decide([policy({ targetRefs: [{ kind: "Service", name: "x" }], action: "DENY", rules: [{}] })], http({}))
          .status,
        200,
      ),
  },
  {
    id: "CVE-2024-23326",
    attack: "bytes behind an upgrade that is not agreed to are a request nobody decided on",
    answer: "they are the next request, decided on its own (src/proxy/http.test.ts)",
    check: () =>
      assert.equal(headFault("GET / HTTP/1.1", "Host: shop", "Connection: Upgrade", "Upgrade: websocket"), null),
  },
  {
    id: "CVE-2025-64763",
    attack: "data sent early behind CONNECT",
    answer: "405 to CONNECT between sidecars' own requests (src/proxy/http.test.ts); a policy sees the method",
    check: () =>
      denied([deny({ to: [{ operation: { methods: ["CONNECT"] } }] })], [http({ method: "CONNECT", path: "/" })]),
  },
  {
    id: "CVE-2026-48743",
    attack: "two content-lengths, or one that the body does not have",
    answer: "400 and a closed connection",
    check: () =>
      refusesHeads(
        [...START, "Content-Length: 5", "Content-Length: 6"],
        [...START, "Content-Length: 5, 5"],
        [...START, "Content-Length: +5"],
        [...START, "Content-Length: 0x5"],
        [...START, "Content-Length: 99999999999999999999"],
      ),
  },
  {
    id: "request smuggling",
    attack: "CL.TE, TE.CL, TE.TE, obs-fold, bare LF, a space before the colon",
    answer: "400 and a closed connection (fuzzed in src/proxy/smuggling.test.ts)",
    check: () =>
      refusesHeads(
        [...START, "Content-Length: 5", "Transfer-Encoding: chunked"],
        [...START, "Transfer-Encoding: chunked, identity"],
        [...START, "Transfer-Encoding: xchunked"],
        [...START, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        [...START, "Transfer-Encoding:", " chunked"],
        ["POST / HTTP/1.1\nHost: shop"],
      ),
  },
  {
    id: "targetRefs on a sidecar",
    attack: "a policy meant for a gateway is silently not in force",
    answer: "as Istio: it selects no sidecar, and a finding says so",
    check: () =>
      assert.equal(
        decide(
          [
            policy({
              targetRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "g" }],
              ...{ action: "DENY", rules: [paths("/")] },
            }),
          ],
          http({}),
        ).status,
        200,
      ),
  },
];
