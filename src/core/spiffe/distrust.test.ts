import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCertificate } from "../x509/certificate.ts";
import { NOW, testCa, testLeaf } from "../x509/fixture.ts";
import { type Bundle, emptyBundle } from "./bundle.ts";
import { hasLostAuthority, isDistrusted, isTrustedKey } from "./distrust.ts";
import { parseTrustDomain } from "./id.ts";

const trustDomain = parseTrustDomain("example.com");
const ca = testCa("one");
const other = testCa("two");
const chain = [testLeaf(ca, "spiffe://example.com/web")];
const keyId = parseCertificate(ca.der).subjectKeyId ?? "";
const bundle = (part: Partial<Bundle>): Bundle => ({ ...emptyBundle(trustDomain), ...part });

test("an SVID is replaced where its authority is tainted, or no longer in the bundle", () => {
  const cases: [string, Bundle, boolean, boolean][] = [
    ["its authority is there", bundle({ x509Authorities: [other.der, ca.der] }), false, false],
    ["tainted", bundle({ x509Authorities: [ca.der], taintedX509KeyIds: [keyId] }), true, false],
    ["another is tainted", bundle({ x509Authorities: [ca.der], taintedX509KeyIds: ["00"] }), false, false],
    ["taken out", bundle({ x509Authorities: [other.der] }), true, true],
    ["nothing is known yet", bundle({}), false, false],
  ];
  for (const [what, given, distrusted, lost] of cases) {
    assert.equal(isDistrusted(chain, given, NOW), distrusted, what);
    assert.equal(hasLostAuthority(chain, given, NOW), lost, what);
  }
});

test("a token's key is trusted while it is in the bundle and not tainted", () => {
  const key = { keyId: "a", publicKey: new Uint8Array(), expiresAtMs: null, tainted: false };
  assert.equal(isTrustedKey("a", bundle({ jwtAuthorities: [key] })), true);
  assert.equal(isTrustedKey("a", bundle({ jwtAuthorities: [{ ...key, tainted: true }] })), false);
  assert.equal(isTrustedKey("b", bundle({ jwtAuthorities: [key] })), false);
});
