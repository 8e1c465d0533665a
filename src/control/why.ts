/** The document of `everyhop why`. */
import type { WhyDocument } from "../core/api/admin.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { suggest } from "../core/base/suggest.ts";
import type { Denials } from "./denials.ts";
import { allowedAt, decidingRule } from "./rule-text.ts";
import type { World } from "./world.ts";

/** The denial with that id, and what its rule says and what is allowed there now. Errors: `not-found`. */
export function whyDocument(id: string, denials: Denials, world: World): WhyDocument {
  const found = denials.find(id);
  if (found === null) {
    const near = suggest(id, denials.ids());
    throw new EveryhopError("not-found", `no denial has the id \`${id.slice(0, 128)}\``, {
      hint:
        near === null
          ? "the id is the `x-everyhop-denial` of the answer; the last few hundred of each service since the server started are known, older ones are in the sidecar's access log"
          : `did you mean \`${near}\`?`,
    });
  }
  const { node, denial } = found;
  return {
    ...denial,
    ruleText: decidingRule(world, node, denial.policy, denial.rule),
    allowed: allowedAt(world, node),
    version: world.version,
  };
}
