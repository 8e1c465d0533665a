/** `agent_path_template`: the path of an agent's ID, made of what its attestation found. */
import { EveryhopError } from "../../../core/base/errors.ts";
import { makeSpiffeId, type TrustDomain } from "../../../core/spiffe/id.ts";

/** Values by the names that Go's templates use for them: `Subject.CommonName`. */
export type PathData = Readonly<Record<string, string>>;

export interface PathTemplate {
  /** `/spire/agent/…`. Errors: `permission-denied` where a value makes no SPIFFE ID. */
  path(data: PathData, trustDomain: TrustDomain): string;
}

/**
 * Reads a template: text with `{{ .Name }}` in it. Functions and pipelines of Go's templates are not there.
 * Errors: `config-invalid`, also for a name that is not among `names`.
 */
export function parsePathTemplate(text: string, names: readonly string[]): PathTemplate {
  const parts = text.split(/\{\{(.*?)\}\}/s).map((part, index) => {
    if (index % 2 === 0) {
      return { text: part };
    }
    const name = /^-?\s*\.([A-Za-z]+(?:\.[A-Za-z]+)*)\s*-?$/.exec(part)?.[1];
    if (name === undefined || !names.includes(name)) {
      throw new EveryhopError("config-invalid", `the agent path template has \`{{${part}}}\`, which is not known`, {
        hint: `it may have ${names.map((known) => `{{ .${known} }}`).join(", ")}`,
      });
    }
    return { name };
  });
  if (!text.startsWith("/")) {
    throw new EveryhopError("config-invalid", `the agent path template \`${text}\` does not begin with \`/\``);
  }
  return {
    path(data, trustDomain) {
      const path = parts.map((part) => ("name" in part ? (data[part.name] ?? "") : part.text)).join("");
      try {
        makeSpiffeId(trustDomain, `/spire/agent${path}`);
      } catch (cause) {
        throw new EveryhopError("permission-denied", "what the node proved makes no agent ID", { cause });
      }
      return `/spire/agent${path}`;
    },
  };
}
