import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { EveryhopError } from "../core/base/errors.ts";
import { type RegistrationEntry, validateEntry } from "../core/entries/entry.ts";
import { type EntryPlan, planEntries } from "../core/entries/plan.ts";
import { parseTrustDomain, type TrustDomain } from "../core/spiffe/id.ts";
import { Bundle } from "../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { Entry } from "../gen/spire/api/server/entry/v1/entry_pb.js";
import { BundleMaskSchema } from "../gen/spire/api/types/bundle_pb.js";
import { draftFromWire, entryToWire } from "../identity/server/entry-wire.ts";
import type { RpcClient } from "../io/rpc/adapter.ts";
import { askServer, itemError } from "./ask-server.ts";
import { commandGroup } from "./command-group.ts";
import { readEntrySets } from "./entry-files.ts";
import { planDocument, planText } from "./entry-plan-text.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { readPolicyFiles } from "./policy-files.ts";
import { note, print, printJson } from "./ui.ts";

interface Options extends MeshOptions {
  readonly prune?: boolean;
  readonly json?: boolean;
}

const EXAMPLE = `
A set of entries, in a file:
  apiVersion: everyhop.dev/v1
  kind: EntrySet
  metadata: {name: shop, labels: {team: shop}}
  templates:
    service:
      spiffeId: spiffe://example.com/ns/shop/sa/{account}
      parentId: spiffe://example.com/node/shop
      selectors: ["unix:user:{account}"]
  entries:
  - {template: service, with: {account: [web, api]}}
`;

export function define(program: Command): void {
  const entry = commandGroup(program, "entry", "registration entries: which workload gets which identity");
  addMeshOptions(entry.command("plan"))
    .description("what `apply` would create, change and delete; exit code 1 where it could not")
    .argument("<path...>", "files and folders with `kind: EntrySet` documents")
    .option("--json", "as JSON")
    .addHelpText("after", `${EXAMPLE}\nExample:\n  everyhop entry plan entries/`)
    .action(planOnly);
  addMeshOptions(entry.command("apply"))
    .description("make the registry hold what the files say")
    .argument("<path...>", "files and folders with `kind: EntrySet` documents")
    .option("--prune", "delete entries of these sets that are no longer in them")
    .option("--json", "as JSON")
    .addHelpText(
      "after",
      `${EXAMPLE}\nExamples:\n  everyhop entry apply entries/\n  everyhop entry apply entries/ --prune`,
    )
    .action(apply);
}

async function planOnly(paths: readonly string[], options: Options): Promise<void> {
  const plans = await plansOf(paths, options);
  if (options.json === true) {
    printJson({ sets: plans.map(planDocument) });
  } else {
    for (const plan of plans) {
      print(planText(plan, true));
    }
  }
  process.exitCode = plans.some(({ conflicts }) => conflicts.length > 0) ? 1 : 0;
}

async function plansOf(paths: readonly string[], options: Options): Promise<readonly EntryPlan[]> {
  const files = readPolicyFiles(paths);
  const trustDomain = await askServer(options, Bundle, async (bundles) =>
    parseTrustDomain((await bundles.getBundle({ outputMask: create(BundleMaskSchema, {}) })).trustDomain),
  );
  const sets = readEntrySets(files, trustDomain);
  const current = await askServer(options, Entry, (entries) => currentEntries(entries, trustDomain));
  return sets.map(({ name, entries }) => planEntries(name, entries, current));
}

const PAGE = 1_000;

async function currentEntries(
  entries: RpcClient<typeof Entry>,
  trustDomain: TrustDomain,
): Promise<readonly RegistrationEntry[]> {
  const all: RegistrationEntry[] = [];
  let pageToken = "";
  do {
    const page = await entries.listEntries({ pageSize: PAGE, pageToken });
    for (const message of page.entries) {
      const checked = validateEntry(draftFromWire(message), { trustDomain, now: 0, newId: message.id });
      if (checked.ok) {
        all.push(checked.entry);
      }
    }
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return all;
}

async function apply(paths: readonly string[], options: Options): Promise<void> {
  const plans = await plansOf(paths, options);
  const [conflict] = plans.flatMap(({ conflicts }) => conflicts);
  if (conflict !== undefined) {
    for (const plan of plans.filter(({ conflicts }) => conflicts.length > 0)) {
      note(planText(plan, true));
    }
    throw new EveryhopError(
      "failed-precondition",
      `\`${conflict.wanted.spiffeId}\` belongs to another set; nothing was changed`,
      {
        hint: "take it out of one of the two",
      },
    );
  }
  const failures = await askServer(options, Entry, async (entries) => {
    const failed: Failure[] = [];
    for (const plan of plans) {
      failed.push(...(await carryOut(plan, entries, options.prune === true)));
    }
    return failed;
  });
  const prune = options.prune === true;
  if (options.json === true) {
    printJson({ sets: plans.map((plan) => ({ ...planDocument(plan), pruned: prune })), failed: failures });
  } else {
    for (const plan of plans) {
      print(planText(plan, prune));
      if (!prune && plan.remove.length > 0) {
        note(`${plan.remove.length} of the set \`${plan.set}\` are left: \`--prune\` deletes them`);
      }
    }
    for (const { spiffeId, message } of failures) {
      note(`error: ${spiffeId}: ${message}`);
    }
  }
  process.exitCode = failures.length > 0 ? 1 : 0;
}

interface Failure {
  readonly spiffeId: string;
  readonly message: string;
}

const BATCH = 200;

/** Additions first and deletions last, so that a workload that moves from one entry to another is at no time without. */
async function carryOut(plan: EntryPlan, entries: RpcClient<typeof Entry>, prune: boolean): Promise<Failure[]> {
  const created = await inBatches(plan.create, async (batch) => {
    const messages = batch.map((entry) => entryToWire(entry));
    return (await entries.batchCreateEntry({ entries: messages, outputMask: {} })).results;
  });
  const updated = await inBatches(
    plan.update.map(({ after }) => after),
    async (batch) => {
      const messages = batch.map((entry) => entryToWire(entry));
      return (await entries.batchUpdateEntry({ entries: messages, outputMask: {} })).results;
    },
  );
  const deleted = prune
    ? await inBatches(plan.remove, async (batch) => {
        return (await entries.batchDeleteEntry({ ids: batch.map(({ id }) => id) })).results;
      })
    : [];
  return [...created, ...updated, ...deleted];
}

type Result = { readonly status?: { readonly code: number; readonly message: string } | undefined };

async function inBatches(
  all: readonly RegistrationEntry[],
  send: (batch: readonly RegistrationEntry[]) => Promise<readonly Result[]>,
): Promise<Failure[]> {
  const failed: Failure[] = [];
  for (let start = 0; start < all.length; start += BATCH) {
    const batch = all.slice(start, start + BATCH);
    const results = await send(batch);
    for (const [index, { spiffeId }] of batch.entries()) {
      const error = itemError(results[index]?.status);
      if (error !== null) {
        failed.push({ spiffeId, message: error.message });
      }
    }
  }
  return failed;
}
