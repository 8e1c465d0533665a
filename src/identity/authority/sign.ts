import { hash } from "node:crypto";
import { EveryhopError } from "../../core/base/errors.ts";
import type { TrustDomain } from "../../core/spiffe/id.ts";
import type { Intent } from "../intent/intent.ts";
import type { SigningService } from "../intent/service.ts";
import type { IssuanceIntent, Journal } from "./journal.ts";

/** What an authority of either kind needs from outside. */
export interface AuthorityContext {
  readonly trustDomain: TrustDomain;
  readonly journal: Journal;
  readonly signer: SigningService;
  /** `count` random octets. */
  readonly random: (count: number) => Uint8Array;
}

/** For people, and for the journal. */
type About = Pick<IssuanceIntent, "spiffeId" | "entryId" | "dnsNames" | "audiences">;

/**
 * Has the signer build and lint, writes the intent with the digest of those very bytes to the journal, has it sign, records.
 * INVARIANT: this is the only way to a signature, and each step has come back before the next. Errors: the signer's, the journal's.
 */
export async function signIntent(
  { signer, journal }: AuthorityContext,
  intent: Exclude<Intent, { kind: "x509-csr" }>,
  about: About,
): Promise<Uint8Array> {
  if (about.entryId === "") {
    throw new EveryhopError("internal", `refused to sign for \`${about.spiffeId}\` without a registration entry`);
  }
  const { kind, serial, authorityId, notBeforeMs, notAfterMs } = intent;
  const permit = await signer.prepare(intent);
  await journal.intend({ kind, serial, authorityId, notBeforeMs, notAfterMs, ...about, digest: permit.digest });
  const issued = await signer.sign(permit);
  // A token is a bearer secret: its digest is recorded.
  await journal.record(serial, kind === "jwt-svid" ? hash("sha256", issued, "buffer") : issued);
  return issued;
}

/**
 * A serial number: 16 octets in hex, of which the last ten are random. They begin with the time, so that numbers of one time lie
 * together in the journal's indices: wholly random ones touch a page of the disk each. SPEC: RFC 5280 §4.1.2.2: positive.
 */
export function newSerial(random: AuthorityContext["random"], now: number): string {
  const octets = random(10);
  // Times up to the year 4199 take 46 bits; the bit above makes it positive and never short.
  const time = (2 ** 46 + Math.floor(now)).toString(16).padStart(12, "0");
  return time + Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("hex");
}

export const wholeSeconds = (ms: number): number => Math.floor(ms / 1000) * 1000;
