/** From an intent to the bytes to be signed, linted against the intent: certificates and requests. Tokens: token.ts. */
import { EveryhopError } from "../../core/base/errors.ts";
import { spiffeIdFault } from "../../core/spiffe/id.ts";
import { checkedPublicKey } from "../../core/x509/algorithm.ts";
import { assembleCertificate, buildCaTbs, buildLeafTbs, keyIdentifierOf } from "../../core/x509/build.ts";
import type { Certificate } from "../../core/x509/certificate.ts";
import { parseCsr } from "../../core/x509/csr.ts";
import { buildCsrInfo } from "../../core/x509/csr-build.ts";
import { dnsNameFault } from "../../core/x509/dns-name.ts";
import { type LintExpectation, lintTbs } from "../../core/x509/lint.ts";
import { encodeName } from "../../core/x509/name.ts";
import type { CaIntent, Ceilings, LeafIntent, RequestIntent } from "../intent/intent.ts";
import { x509AlgorithmOf } from "./key-types.ts";
import { permitFor, type SigningKey, type SigningPermit } from "./permit.ts";

/** A key of the signer's, and of a CA its certificate once adopted. */
export interface Held {
  readonly id: string;
  readonly signing: SigningKey;
  readonly certificate: Certificate | null;
}

export interface Rules {
  readonly trustDomain: string;
  readonly ceilings: Ceilings;
}

/** What may be signed now, and what becomes of it with its signature. */
export interface Prepared {
  readonly permit: SigningPermit;
  assemble(signed: { readonly bytes: Uint8Array; readonly signature: Uint8Array }): Uint8Array;
}

const SUBJECT = [
  { type: "C", value: "US" },
  { type: "O", value: "everyhop" },
] as const;
const LEAF_SUBJECT = encodeName([...SUBJECT]);

export function prepareLeaf(intent: LeafIntent, by: Held, { trustDomain, ceilings }: Rules, now: number): Prepared {
  const { spiffeId, dnsNames, spki } = intent;
  refuseOutside(spiffeId, trustDomain);
  for (const name of dnsNames) {
    const fault = dnsNameFault(name);
    if (fault !== null) {
      throw new EveryhopError("invalid-argument", `the DNS name \`${name}\` ${fault}`);
    }
  }
  const subjectKeyId = keyIdentifierOf(checkedPublicKey(spki));
  const issuer = certificateOf(by);
  const algorithm = x509AlgorithmOf(by.signing.type);
  const tbs = buildLeafTbs({
    serial: Buffer.from(intent.serial, "hex"),
    algorithm,
    issuer: issuer.subject.der,
    subject: LEAF_SUBJECT,
    notBeforeMs: intent.notBeforeMs,
    notAfterMs: intent.notAfterMs,
    spki,
    subjectKeyId,
    authorityKeyId: Buffer.from(by.id, "hex"),
    spiffeId,
    dnsNames,
  });
  const expected: LintExpectation = {
    kind: "leaf",
    algorithm,
    serial: intent.serial,
    spiffeId,
    dnsNames,
    spki,
    issuer: issuer.subject.der,
    issuerKeyId: by.id,
    nowMs: now,
    issuerNotAfterMs: issuer.notAfterMs,
    maxLifetimeMs: ceilings.maxX509SvidTtlMs,
  };
  return certificate(tbs, expected);
}

/** SPEC: X509-SVID §4, Appendix A: a URI name that is the trust domain, keyCertSign and cRLSign. */
export function prepareCa(intent: CaIntent, by: Held, { trustDomain, ceilings }: Rules, now: number): Prepared {
  const own = Buffer.compare(intent.spki, by.signing.spki) === 0;
  if (!own && !ceilings.downstream) {
    throw new EveryhopError("permission-denied", "the signer certifies no CA of another server", {
      hint: "`signer: {downstream: true}` in the server's configuration allows it",
    });
  }
  checkedPublicKey(intent.spki);
  // A subject of its own for each CA, or verifiers would try every root of the bundle on every chain.
  const serialNumber = BigInt(`0x${intent.serial}`).toString();
  const subject = encodeName([...SUBJECT, { type: "serialNumber", value: serialNumber }]);
  const above = own ? null : certificateOf(by);
  const issuer = above?.subject.der ?? subject;
  const algorithm = x509AlgorithmOf(by.signing.type);
  const spiffeId = `spiffe://${trustDomain}`;
  const tbs = buildCaTbs({
    serial: Buffer.from(intent.serial, "hex"),
    algorithm,
    issuer,
    subject,
    notBeforeMs: intent.notBeforeMs,
    notAfterMs: intent.notAfterMs,
    spki: intent.spki,
    authorityKeyId: Buffer.from(by.id, "hex"),
    spiffeId,
    pathLength: null,
  });
  const expected: LintExpectation = {
    kind: "ca",
    algorithm,
    serial: intent.serial,
    spiffeId,
    dnsNames: [],
    spki: intent.spki,
    issuer,
    issuerKeyId: by.id,
    nowMs: now,
    issuerNotAfterMs: above?.notAfterMs ?? intent.notAfterMs,
    maxLifetimeMs: ceilings.maxCaTtlMs,
  };
  return certificate(tbs, expected);
}

function certificate(tbs: Uint8Array, expected: LintExpectation): Prepared {
  return {
    permit: permitFor(tbs, expected.spiffeId, (bytes) => lintTbs(bytes, expected)),
    assemble: ({ bytes, signature }) => assembleCertificate(bytes, expected.algorithm, () => signature),
  };
}

/** A request for a CA: of all its content only the key and the trust domain's name say anything. */
export function prepareRequest(_intent: RequestIntent, by: Held, { trustDomain }: Rules): Prepared {
  const algorithm = x509AlgorithmOf(by.signing.type);
  const spiffeId = `spiffe://${trustDomain}`;
  const info = buildCsrInfo({ spki: by.signing.spki, algorithm, uris: [spiffeId] });
  const assemble: Prepared["assemble"] = ({ bytes, signature }) =>
    assembleCertificate(bytes, algorithm, () => signature);
  const lint = (bytes: Uint8Array): readonly string[] => {
    const { spki, names } = parseCsr(assemble({ bytes, signature: new Uint8Array(8) }));
    const asAsked = Buffer.compare(spki, by.signing.spki) === 0 && names?.uris.join() === spiffeId;
    return asAsked ? [] : ["the request is not what was asked for"];
  };
  return { permit: permitFor(info, spiffeId, lint), assemble };
}

/** Errors: `permission-denied` for an ID of another trust domain; `invalid-argument` where it names no workload. */
export function refuseOutside(spiffeId: string, trustDomain: string): void {
  const fault = spiffeIdFault(spiffeId);
  if (fault !== null) {
    throw new EveryhopError("invalid-argument", `\`${spiffeId}\` is no SPIFFE ID: it ${fault}`);
  }
  if (spiffeId === `spiffe://${trustDomain}`) {
    throw new EveryhopError(
      "invalid-argument",
      `\`${spiffeId}\` is the root of its trust domain and names no workload`,
    );
  }
  if (!spiffeId.startsWith(`spiffe://${trustDomain}/`)) {
    throw new EveryhopError("permission-denied", `\`${spiffeId}\` is not in the trust domain \`${trustDomain}\``);
  }
}

function certificateOf({ id, certificate }: Held): Certificate {
  if (certificate === null) {
    throw new EveryhopError("failed-precondition", `the CA \`${id}\` has no certificate yet`);
  }
  return certificate;
}
