// Runs before the main script of a command that printer starts: asks the agent who this process is, says so, and leaves.
import { fetchSvids } from "./workload-api.mjs";

const answer = await fetchSvids().then(
  (svids) => svids.map(({ id }) => `ID ${id}\n`).join(""),
  (error) => `refused: ${error.message}\n`,
);
process.stdout.write(answer, () => process.exit(0));
await new Promise(() => {});
