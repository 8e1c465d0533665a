/** k8s_psat, the node's half: the projected token of the agent's pod. */
import { readFile } from "node:fs/promises";
import { EveryhopError } from "../../../../core/base/errors.ts";
import { writePayload } from "../payload.ts";
import type { MakeProof } from "../proof.ts";

/** SPEC: SPIRE, doc/plugin_agent_nodeattestor_k8s_psat.md. */
const DEFAULT_TOKEN = "/var/run/secrets/tokens/spire-agent";

/** Reads the token anew at each attempt: Kubernetes replaces it. Errors: `file-missing`. */
export function k8sPsatProof(options: { readonly cluster: string; readonly tokenFile?: string }): MakeProof {
  const { cluster, tokenFile = DEFAULT_TOKEN } = options;
  return async () => {
    const token = await readToken(tokenFile);
    return {
      type: "k8s_psat",
      payload: writePayload({ cluster, token }),
      async answer() {
        throw new EveryhopError("unauthenticated", "the server challenges a pod's token, which has no answer");
      },
    };
  };
}

async function readToken(file: string): Promise<string> {
  try {
    const token = (await readFile(file, "utf8")).trim();
    if (token !== "") {
      return token;
    }
  } catch (cause) {
    throw new EveryhopError("file-missing", `cannot read the pod's token \`${file}\`: ${(cause as Error).message}`, {
      hint: "mount a projected service account token with the server's audience there",
      cause,
    });
  }
  throw new EveryhopError("file-missing", `the pod's token \`${file}\` is empty`);
}
