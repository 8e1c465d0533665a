/** What the signer's process does: holds the keys, and signs what it built, linted and logged itself. */
import { EveryhopError, toEveryhopError } from "../../core/base/errors.ts";
import { trustDomainFault } from "../../core/spiffe/id.ts";
import { publicKeyFromSpki, verifySignature } from "../../core/x509/algorithm.ts";
import { type Certificate, parseCertificate } from "../../core/x509/certificate.ts";
import { ChainedLog, type LogEntry, type LogPage } from "../../io/chained-log/chained-log.ts";
import { member } from "../../io/chained-log/segment.ts";
import type { HeldKey, Intent, KeyUse, Permit, SetUp, Setup } from "../intent/intent.ts";
import type { KeyType } from "../intent/key-type.ts";
import type { Outcome } from "../intent/wire.ts";
import { type Held, type Prepared, prepareCa, prepareLeaf, prepareRequest } from "./build.ts";
import { Rates, refuseTimes } from "./ceilings.ts";
import { SigningKey } from "./permit.ts";
import { Permits, type Waiting } from "./permits.ts";
import { SerialSet } from "./serials.ts";
import { prepareToken } from "./token.ts";
import type { StoredKey, Vault } from "./vault.ts";

export interface SignerEdge {
  readonly now: () => number;
  /** `count` random octets. */
  readonly random: (count: number) => Uint8Array;
  readonly openVault: (setup: Setup) => Promise<Vault>;
  /** Crash tests end the process here. */
  readonly atPoint?: (name: "before-log" | "after-log" | "after-sign") => void;
}

type HeldHere = Held & { readonly use: KeyUse; readonly chain: readonly Uint8Array[] };

/** Serials that stand in the log. */
const SIGNED = /"kind":"(?:x509-svid|x509-ca|x509-csr|jwt-svid)"/;

export class Signer {
  readonly #setup: Setup;
  readonly #edge: SignerEdge;
  readonly #vault: Vault;
  readonly #log: ChainedLog;
  readonly #serials: SerialSet;
  readonly #permits: Permits;
  readonly #rates: Rates;
  /** By use and id. */
  readonly #keys = new Map<string, HeldHere>();

  private constructor(setup: Setup, edge: SignerEdge, vault: Vault, log: ChainedLog, serials: SerialSet) {
    this.#setup = setup;
    this.#edge = edge;
    this.#vault = vault;
    this.#log = log;
    this.#serials = serials;
    this.#permits = new Permits(edge.random);
    this.#rates = new Rates(setup.ceilings);
  }

  /** Errors: `storage-failed`, `permission-denied`, `unavailable` of keys and log; `invalid-argument` of the setup. */
  static async open(setup: Setup, edge: SignerEdge): Promise<{ readonly signer: Signer; readonly setUp: SetUp }> {
    const fault = trustDomainFault(setup.trustDomain);
    if (fault !== null) {
      throw new EveryhopError("invalid-argument", `\`${setup.trustDomain}\`: ${fault}`);
    }
    const serials = new SerialSet();
    const known = { trustDomain: null as string | null };
    const onLine = (line: string): void => {
      if (SIGNED.test(line)) {
        serials.add(member(line, "serial") ?? "");
      }
      known.trustDomain = line.includes('"kind":"start"') ? member(line, "trustDomain") : known.trustDomain;
    };
    const log = await ChainedLog.open({
      dir: setup.logDir,
      name: "signed",
      title: "the signer's log",
      now: edge.now,
      onLine,
    });
    try {
      if (known.trustDomain !== null && known.trustDomain !== setup.trustDomain) {
        throw new EveryhopError("failed-precondition", `the signer's log is that of \`${known.trustDomain}\``, {
          hint: "give each trust domain a data folder of its own",
        });
      }
      const vault = await edge.openVault(setup);
      const signer = new Signer(setup, edge, vault, log, serials);
      for (const stored of await vault.load()) {
        signer.#hold(stored);
      }
      const { trustDomain, ceilings, keys } = setup;
      await log.append([{ kind: "start", trustDomain, keys: keys.kind, ceilings }]);
      const held = [...signer.#keys.values()].map(describe);
      const { durable } = vault;
      return { signer, setUp: { keys: held, durable, repairedBytes: log.repairedBytes, logRecords: log.records } };
    } catch (error) {
      await log.close();
      throw error;
    }
  }

  async createKey(use: KeyUse, type: KeyType): Promise<HeldKey> {
    const held = this.#hold(await this.#vault.create(use, type));
    await this.#log.append([{ kind: "create-key", use, by: held.id, type }]);
    return describe(held);
  }

  /** Builds and lints each, and gives permits for those that may be signed. */
  prepare(intents: readonly Intent[]): Outcome<Permit>[] {
    return intents.map((intent) => outcome(() => this.#prepare(intent)));
  }

  /** Logs, signs. INVARIANT: the log has it on disk before a signature exists. */
  async sign(tokens: readonly string[]): Promise<Outcome<Uint8Array>[]> {
    const { now, atPoint = () => {} } = this.#edge;
    const taken = tokens.map((token) => outcome(() => this.#permits.take(token, now())));
    const entries = taken.flatMap((one) => (one.ok ? [one.value.entry] : []));
    atPoint("before-log");
    await this.#log.append(entries);
    atPoint("after-log");
    const signed = taken.map((one) => (one.ok ? outcome(() => finish(one.value)) : one));
    atPoint("after-sign");
    const gone = signed.find((one) => !one.ok && one.error.code === "storage-failed");
    if (gone?.ok === false) {
      // The token is gone, and so is what this signer is for.
      throw gone.error;
    }
    return signed;
  }

  /** Errors: `invalid-argument` where it is no certificate of a CA of ours for that very key. */
  async adopt(id: string, chain: readonly Uint8Array[]): Promise<void> {
    const held = this.#key("x509", id);
    const [der] = chain;
    const certificate = der === undefined ? null : parseCertificate(der);
    const uri = certificate?.names?.uris.join();
    const fits =
      certificate !== null &&
      certificate.subjectKeyId === id &&
      Buffer.compare(certificate.spki, held.signing.spki) === 0 &&
      certificate.basicConstraints?.ca === true &&
      selfSignedFault(certificate) === null &&
      (uri === undefined || uri === "" || uri === `spiffe://${this.#setup.trustDomain}`);
    if (!fits) {
      throw new EveryhopError("invalid-argument", `this is no certificate of the CA \`${id}\``);
    }
    await this.#vault.adopt(id, chain);
    this.#keys.set(keyOf("x509", id), { ...held, certificate, chain });
    await this.#log.append([{ kind: "adopt", by: id, serialOfCa: certificate.serial, until: certificate.notAfterMs }]);
  }

  async discard(use: KeyUse, id: string): Promise<void> {
    const known = this.#keys.delete(keyOf(use, id));
    await this.#vault.discard(use, id);
    if (known) {
      await this.#log.append([{ kind: "discard-key", use, by: id }]);
    }
  }

  log(after: number): Promise<LogPage> {
    return this.#log.page(after);
  }

  async close(): Promise<void> {
    await this.#log.close();
    await this.#vault.close();
  }

  #prepare(intent: Intent): Permit {
    const now = this.#edge.now();
    const by = this.#key(intent.kind === "jwt-svid" ? "jwt" : "x509", intent.authorityId);
    if (intent.kind === "x509-svid" || intent.kind === "jwt-svid") {
      this.#rates.take("svid", now);
    } else if (intent.kind === "x509-ca" && Buffer.compare(intent.spki, by.signing.spki) !== 0) {
      this.#rates.take("downstream", now);
    }
    const prepared = this.#build(intent, by, now);
    if (!this.#serials.add(intent.serial)) {
      throw new EveryhopError("already-exists", `the serial number ${intent.serial} was used before`);
    }
    const { digest } = prepared.permit;
    return { token: this.#permits.give({ prepared, by, entry: entryOf(intent, digest) }, now), digest };
  }

  #build(intent: Intent, by: Held, now: number): Prepared {
    if (intent.kind === "x509-csr") {
      return prepareRequest(intent, by, this.#setup);
    }
    refuseTimes(intent, this.#setup.ceilings, now);
    switch (intent.kind) {
      case "x509-svid":
        return prepareLeaf(intent, by, this.#setup, now);
      case "x509-ca":
        return prepareCa(intent, by, this.#setup, now);
      case "jwt-svid":
        return prepareToken(intent, by, this.#setup, now);
    }
  }

  #key(use: KeyUse, id: string): HeldHere {
    const held = this.#keys.get(keyOf(use, id));
    if (held === undefined) {
      throw new EveryhopError("failed-precondition", `the signer has no ${use} key \`${id}\``);
    }
    return held;
  }

  #hold({ use, id, key, chain }: StoredKey): HeldHere {
    const certificate = chain[0] === undefined ? null : parseCertificate(chain[0]);
    if (certificate !== null && Buffer.compare(certificate.spki, key.spki) !== 0) {
      throw new EveryhopError(
        "storage-failed",
        `a stored CA cannot be used: the key is not the certificate's (\`${id}\`)`,
      );
    }
    const held = { use, id, signing: new SigningKey(key), certificate, chain };
    this.#keys.set(keyOf(use, id), held);
    return held;
  }
}

/** A certificate that says it signed itself must have done so; of one from above only the verifiers know the issuer. */
function selfSignedFault({ subject, issuer, spki, algorithm, tbs, signature }: Certificate): string | null {
  const own = Buffer.compare(subject.der, issuer.der) === 0;
  const verified = own && algorithm !== null && verifySignature(algorithm, publicKeyFromSpki(spki), tbs, signature);
  return own && !verified ? "its signature does not verify" : null;
}

const keyOf = (use: KeyUse, id: string): string => `${use}-${id}`;

function describe({ use, id, signing, chain }: HeldHere): HeldKey {
  return { use, id, type: signing.type, spki: signing.spki, chain };
}

function finish({ prepared, by }: Waiting): Uint8Array {
  return prepared.assemble(by.signing.sign(prepared.permit));
}

function outcome<T>(make: () => T): Outcome<T> {
  try {
    return { ok: true, value: make() };
  } catch (error) {
    return { ok: false, error: toEveryhopError(error) };
  }
}

/** What the log keeps of it. */
function entryOf(intent: Intent, digest: string): LogEntry {
  const { kind, serial, authorityId: by } = intent;
  switch (kind) {
    case "x509-svid":
      return { kind, serial, id: intent.spiffeId, dns: intent.dnsNames, until: intent.notAfterMs, by, digest };
    case "jwt-svid":
      return { kind, serial, id: intent.spiffeId, aud: intent.audiences, until: intent.notAfterMs, by, digest };
    case "x509-ca":
      return { kind, serial, until: intent.notAfterMs, by, digest };
    case "x509-csr":
      return { kind, serial, by, digest };
  }
}
