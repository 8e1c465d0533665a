import { createPrivateKey, X509Certificate } from "node:crypto";
import { EveryhopError } from "../core/base/errors.ts";
import { parseSpiffeId, parseTrustDomain, type TrustDomain, trustDomainOf } from "../core/spiffe/id.ts";
import type { X509Svid } from "../core/spiffe/svid.ts";
import { identityOf } from "../core/spiffe/x509-svid.ts";
import { parseCertificate } from "../core/x509/certificate.ts";
import { splitDer } from "../core/x509/der.ts";
import type { X509Update } from "./x509-source.ts";

const MAX_AUTHORITIES = 1_000;

/** What the Workload API and the Broker API have in common. */
interface Response {
  readonly svids: readonly SvidMessage[];
  readonly federatedBundles: Readonly<Record<string, Uint8Array>>;
}

interface SvidMessage {
  readonly spiffeId: string;
  readonly x509Svid: Uint8Array;
  readonly x509SvidKey: Uint8Array;
  readonly bundle: Uint8Array;
  readonly hint: string;
}

/**
 * Reads a response of X.509-SVIDs. SPEC: Workload API §5.2: mandatory fields are there, a hint that was seen before is
 * dropped. Errors: `invalid-argument`: the whole response is to be discarded.
 */
export function readX509(response: Response, now: number): X509Update {
  if (response.svids.length === 0) {
    throw new EveryhopError("invalid-argument", "a response without an SVID");
  }
  const bundles = new Map<TrustDomain, readonly Uint8Array[]>();
  for (const [name, authorities] of Object.entries(response.federatedBundles)) {
    bundles.set(parseTrustDomain(name), splitDer(authorities, MAX_AUTHORITIES));
  }
  const svids: X509Svid[] = [];
  const hints = new Set<string>();
  for (const message of response.svids) {
    const svid = readSvid(message, now);
    bundles.set(trustDomainOf(svid.id), splitDer(message.bundle, MAX_AUTHORITIES));
    if (message.hint === "" || !hints.has(message.hint)) {
      hints.add(message.hint);
      svids.push(svid);
    }
  }
  return { svids, bundles };
}

function readSvid(message: SvidMessage, now: number): X509Svid {
  const id = parseSpiffeId(message.spiffeId);
  const chain = splitDer(message.x509Svid);
  const leafDer = chain[0];
  if (leafDer === undefined || message.bundle.length === 0) {
    throw new EveryhopError("invalid-argument", `the SVID of \`${id}\` comes without certificate or bundle`);
  }
  const leaf = parseCertificate(leafDer);
  const identity = identityOf(leaf);
  if (!identity.ok || identity.id !== id) {
    throw new EveryhopError("invalid-argument", `the certificate given for \`${id}\` is not its own`);
  }
  const keyDer = new Uint8Array(message.x509SvidKey);
  const key = createPrivateKey({ key: Buffer.from(keyDer), format: "der", type: "pkcs8" });
  if (!new X509Certificate(leafDer).checkPrivateKey(key)) {
    throw new EveryhopError("invalid-argument", `the key given for \`${id}\` is not that of its certificate`);
  }
  if (leaf.notAfterMs <= now) {
    throw new EveryhopError("invalid-argument", `the SVID given for \`${id}\` is expired`);
  }
  const { serial, notBeforeMs: notBefore, notAfterMs: notAfter } = leaf;
  return { id, chain, keyDer, serial, notBefore, notAfter, hint: message.hint };
}
