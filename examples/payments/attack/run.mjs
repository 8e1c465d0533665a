// What the attacker runs inside printer's process: `input` says where things are, each attempt is reported as it ends.
import { agentDoors, impersonate } from "./identity.mjs";
import { aroundTheSidecar, cage, others } from "./machine.mjs";
import { plaintext, straight, throughOwnSidecar } from "./network.mjs";
import { fetchSvids } from "./workload-api.mjs";

export async function run(input, report) {
  const { targets, commands, cwd, pids, isolated, stateDir } = input;
  const svids = await fetchSvids().catch(() => []);
  const own = svids[0] ?? null;
  const result = svids.map(({ id }) => id).join(", ") || "none";
  report({ attempt: "printer's own identity, to begin with", through: svids.length > 1, result, note: true });
  const series = [
    straight(targets, own, input),
    plaintext(targets),
    throughOwnSidecar(targets),
    impersonate(commands, cwd),
    agentDoors(input, own, pids),
    ...(isolated ? [aroundTheSidecar(targets, input), others(pids, stateDir), cage(pids)] : []),
  ];
  for (const attempts of series) {
    for await (const attempt of attempts) {
      report(attempt);
    }
  }
}
