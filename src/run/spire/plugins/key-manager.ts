/** KeyManager: where private keys are kept. One that we lack is an error: keys must not lie elsewhere than asked for. */
import type { PluginType } from "../plugins.ts";
import { block, type Rule } from "../translation.ts";

const MISSING = {
  aws_kms: "error",
  gcp_kms: "error",
  azure_key_vault: "error",
  hashicorp_vault: "error",
} as const;

const kept =
  (what: string): Rule =>
  (value, at) =>
    at.info(`${what}; \`${value}\` is not read`);

export const SERVER_KEY_MANAGER: PluginType = {
  plugins: {
    disk: block({ keys_path: kept("the authority's keys lie in the folder `keys` of `data_dir`") }),
    memory: (_value, at) => at.set(["keyManager", "kind"], "memory"),
  },
  missing: MISSING,
  hint: 'use KeyManager "disk" or "memory"; a hardware module is `keyManager: {kind: pkcs11, …}` in an `everyhop { … }` block',
};

export const AGENT_KEY_MANAGER: PluginType = {
  plugins: {
    disk: block({ directory: kept("the agent's keys lie in `data_dir`, sealed under the key in `cacheKeyFile`") }),
    memory: (_value, at) => at.set(["cache"], "memory"),
  },
  missing: {},
  hint: 'use KeyManager "disk"',
};
