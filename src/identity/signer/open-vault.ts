import { diskKeyStore, memoryKeyStore } from "../../io/keys.ts";
import type { Setup } from "../intent/intent.ts";
import { tokenVault } from "./token-vault.ts";
import { fileVault, type Vault } from "./vault.ts";

/** Opens what `keys` of the setup names. Errors: `storage-failed`, `permission-denied`, `unavailable`. */
export async function openVault({ keys, trustDomain }: Setup): Promise<Vault> {
  switch (keys.kind) {
    case "disk":
      return fileVault(await diskKeyStore(keys.dir), true);
    case "memory":
      return fileVault(memoryKeyStore(), false);
    case "pkcs11":
      return tokenVault(keys, trustDomain, await diskKeyStore(keys.dir));
  }
}
