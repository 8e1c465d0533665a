import { Cell } from "../../../core/base/cell.ts";
import { EveryhopError } from "../../../core/base/errors.ts";
import { isRecord } from "../../../core/jose/jwk.ts";
import { type Bundle, emptyBundle } from "../../../core/spiffe/bundle.ts";
import type { TrustDomain } from "../../../core/spiffe/id.ts";
import { parseCertificate } from "../../../core/x509/certificate.ts";
import type { StateFile } from "../../../io/state-file.ts";
import { bundleFromDocument, bundleToDocument } from "../bundle-wire.ts";

/** What is believed from above: as told from there, less what an operator of this server took out, or tainted. */
export class KnownBundle {
  readonly bundle: Cell<Bundle>;
  readonly #file: StateFile;
  /** As told from above. */
  #told: Bundle;
  #tainted: readonly string[];
  #revoked: readonly string[];
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: StateFile, kept: Kept) {
    this.#file = file;
    this.#told = kept.told;
    this.#tainted = kept.tainted;
    this.#revoked = kept.revoked;
    this.bundle = new Cell(this.#effective(kept.told.sequence));
  }

  /** Errors: `storage-failed`. */
  static async open(trustDomain: TrustDomain, file: StateFile): Promise<KnownBundle> {
    return new KnownBundle(file, readKept(trustDomain, await file.read()));
  }

  /** Takes what is told now. It is kept, and in `bundle`, once this resolves. */
  learn(change: (before: Bundle) => Bundle): Promise<void> {
    return this.#change(() => {
      this.#told = { ...change(this.#told), sequence: this.#told.sequence };
    });
  }

  taint(subjectKeyId: string): Promise<void> {
    return this.#change(() => {
      this.#tainted = [...new Set([...this.#tainted, subjectKeyId])];
    });
  }

  /** A root by its subjectKeyIdentifier, or a JWT key by its id. */
  revoke(id: string): Promise<void> {
    return this.#change(() => {
      this.#revoked = [...new Set([...this.#revoked, id])];
    });
  }

  #effective(sequence: bigint): Bundle {
    const { x509Authorities, taintedX509KeyIds, jwtAuthorities } = this.#told;
    const isRevoked = (id: string | null): boolean => id !== null && this.#revoked.includes(id);
    return {
      ...this.#told,
      x509Authorities: x509Authorities.filter((der) => !isRevoked(parseCertificate(der).subjectKeyId)),
      taintedX509KeyIds: [...new Set([...taintedX509KeyIds, ...this.#tainted])].filter((id) => !isRevoked(id)),
      jwtAuthorities: jwtAuthorities.filter(({ keyId }) => !isRevoked(keyId)),
      sequence,
    };
  }

  /** RACE: polls and operators' orders meet here; each is written before the next is looked at. */
  #change(apply: () => void): Promise<void> {
    const done = this.#writing.then(async () => {
      apply();
      const before = this.bundle.value;
      if (bundleToDocument(this.#effective(before.sequence)) === bundleToDocument(before)) {
        return;
      }
      const next = this.#effective(before.sequence + 1n);
      this.#told = { ...this.#told, sequence: next.sequence };
      const told = JSON.parse(bundleToDocument(this.#told));
      const document = { format: 1, told, tainted: this.#tainted, revoked: this.#revoked };
      await this.#file.write(Buffer.from(`${JSON.stringify(document, null, 2)}\n`));
      this.bundle.set(next);
    });
    this.#writing = done.catch(() => {});
    return done;
  }
}

interface Kept {
  readonly told: Bundle;
  readonly tainted: readonly string[];
  readonly revoked: readonly string[];
}

function readKept(trustDomain: TrustDomain, bytes: Uint8Array | null): Kept {
  if (bytes === null) {
    return { told: emptyBundle(trustDomain), tainted: [], revoked: [] };
  }
  try {
    const document: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (!isRecord(document) || document.format !== 1 || !isTexts(document.tainted) || !isTexts(document.revoked)) {
      throw new Error("unknown format");
    }
    const told = bundleFromDocument(trustDomain, JSON.stringify(document.told));
    return { told, tainted: document.tainted, revoked: document.revoked };
  } catch (cause) {
    throw new EveryhopError("storage-failed", "what is known of the upstream authority (`upstream.json`) is damaged", {
      hint: "remove it: it is learned again from the upstream authority",
      cause,
    });
  }
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}
