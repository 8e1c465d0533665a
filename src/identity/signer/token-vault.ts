import { randomBytes } from "node:crypto";
import { realpath } from "node:fs/promises";
import { EveryhopError } from "../../core/base/errors.ts";
import { formatPem, parsePem } from "../../core/x509/pem.ts";
import { type KeyStore, readSecretFile } from "../../io/keys.ts";
import { Token, type TokenKey } from "../../io/pkcs11.ts";
import type { KeyPlace, KeyUse } from "../intent/intent.ts";
import { keyIdOf, MARK_BYTES, type StoredKey, type Vault } from "./vault.ts";

type TokenPlace = Extract<KeyPlace, { kind: "pkcs11" }>;

const USES: readonly KeyUse[] = ["x509", "jwt"];
const chainName = (id: string): string => `x509-${id}.pem`;

/**
 * Keys in a token, by the label `everyhop <trust domain> <use>`; a CA's certificates lie beside, in files. Errors: those of `Token`,
 * and of the PIN's file, which is owner-only as a key is.
 */
export async function tokenVault(place: TokenPlace, trustDomain: string, certificates: KeyStore): Promise<Vault> {
  const token = Token.open({ ...place, pin: await readPin(place.pinFile) });
  const labelOf = (use: KeyUse): string => `everyhop ${trustDomain} ${use}`;
  const held = new Map<string, TokenKey>();
  const stored = async (use: KeyUse, key: TokenKey): Promise<StoredKey> => {
    const id = keyIdOf(use, key.spki, key.id);
    held.set(`${use}-${id}`, key);
    const pem = use === "x509" ? await certificates.read(chainName(id)) : null;
    const chain = pem === null ? [] : parsePem(Buffer.from(pem).toString("utf8")).map(({ der }) => der);
    return { use, id, key, chain };
  };
  return {
    durable: true,
    load() {
      const keys = USES.flatMap((use) => token.find(labelOf(use)).map((key) => ({ use, key })));
      return Promise.all(keys.map(({ use, key }) => stored(use, key)));
    },
    async create(use, type) {
      return stored(use, token.generate(labelOf(use), randomBytes(MARK_BYTES), type));
    },
    async adopt(id, chain) {
      await certificates.write(chainName(id), Buffer.from(chain.map((der) => formatPem("CERTIFICATE", der)).join("")));
    },
    async discard(use, id) {
      held.get(`${use}-${id}`)?.destroy();
      held.delete(`${use}-${id}`);
      await certificates.remove(chainName(id));
    },
    close: async () => token.close(),
  };
}

async function readPin(file: string): Promise<Buffer> {
  // Secrets are often mounted as links; what counts is what they lead to.
  const secret = await readSecretFile(await realpath(file).catch(() => file));
  if (secret === null) {
    throw new EveryhopError("file-missing", `the file with the token's PIN, \`${file}\`, is not there`, {
      hint: "`keyManager.pinFile` names it",
    });
  }
  const bytes = Buffer.from(secret);
  let end = bytes.length;
  while (end > 0 && (bytes[end - 1] === 0x0a || bytes[end - 1] === 0x0d)) {
    end--;
  }
  return bytes.subarray(0, end);
}
