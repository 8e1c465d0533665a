import { type Command, Option } from "commander";
import type { BundleProgressDocument } from "../core/api/admin.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { parseCertificate } from "../core/x509/certificate.ts";
import { Bundle } from "../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { type AuthorityState, LocalAuthority } from "../gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import type { RpcClient } from "../io/rpc/adapter.ts";
import { seconds, timeOfWire } from "./arguments.ts";
import { askAdmin } from "./ask-admin.ts";
import { askServer } from "./ask-server.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { note, print, printJson } from "./ui.ts";

type Type = "x509" | "jwt";
type Client = RpcClient<typeof LocalAuthority>;

interface Options extends MeshOptions {
  readonly type: Type;
  readonly authorityId?: string;
  readonly subjectKeyId?: string;
  /** In seconds. */
  readonly wait?: number;
  readonly json?: boolean;
}

/** What each order asks the server, for either type. */
const ORDERS = {
  prepare: {
    x509: async (client: Client) => (await client.prepareX509Authority({})).preparedAuthority,
    jwt: async (client: Client) => (await client.prepareJWTAuthority({})).preparedAuthority,
  },
  activate: {
    x509: async (client: Client, authorityId: string) =>
      (await client.activateX509Authority({ authorityId })).activatedAuthority,
    jwt: async (client: Client, authorityId: string) =>
      (await client.activateJWTAuthority({ authorityId })).activatedAuthority,
  },
  taint: {
    x509: async (client: Client, authorityId: string) =>
      (await client.taintX509Authority({ authorityId })).taintedAuthority,
    jwt: async (client: Client, authorityId: string) =>
      (await client.taintJWTAuthority({ authorityId })).taintedAuthority,
  },
  revoke: {
    x509: async (client: Client, authorityId: string) =>
      (await client.revokeX509Authority({ authorityId })).revokedAuthority,
    jwt: async (client: Client, authorityId: string) =>
      (await client.revokeJWTAuthority({ authorityId })).revokedAuthority,
  },
};

const DONE = { prepare: "Prepared", activate: "Activated", taint: "Tainted", revoke: "Revoked" } as const;
const NAMES = { x509: "X.509", jwt: "JWT" } as const;

export function define(program: Command): void {
  const group = program
    .command("authority")
    .description("the keys this server signs with: prepared, active, old")
    .addHelpText(
      "after",
      `
To replace a key that may have leaked, with no request lost:
  everyhop authority prepare                       a new one, published and not used yet
  everyhop authority activate --authority-id NEW   it signs from now on
  everyhop authority taint --authority-id OLD      what the old one signed is replaced everywhere
  everyhop authority revoke --authority-id OLD     once it is: nobody believes the old one any more`,
    );
  typed(group.command("show")).description("the active, the prepared and the old authority").action(show);
  order(group, "prepare", "make a new authority and publish it; it does not sign yet");
  named(order(group, "activate", "let the prepared authority sign from now on; the active one becomes old")).option(
    "--wait <duration>",
    "at most so long for agents that do not have the new key yet",
    seconds,
    5,
  );
  orUpstream(order(group, "taint", "mark an old authority as no longer secure: what it signed is replaced at once"));
  orUpstream(order(group, "revoke", "take an old authority out of the bundle: nobody believes it any more"));
}

function typed(command: Command): Command {
  return addMeshOptions(command)
    .addOption(new Option("--type <type>", "of which kind").choices(["x509", "jwt"]).default("x509"))
    .option("--json", "as JSON");
}

function order(group: Command, name: keyof typeof ORDERS, description: string): Command {
  const id = name === "prepare" ? "" : " --authority-id ID";
  return typed(group.command(name))
    .description(description)
    .addHelpText("after", `\nExample:\n  everyhop authority ${name} --type jwt${id}`)
    .action((options: Options) => run(name, options));
}

function named(command: Command): Command {
  return command.requiredOption("--authority-id <id>", "which, as `everyhop authority show` writes it");
}

function orUpstream(command: Command): Command {
  return command
    .option("--authority-id <id>", "which, as `everyhop authority show` writes it")
    .option("--subject-key-id <id>", "instead: which upstream authority, that stands above an old one of ours");
}

/** Errors: `usage` where not exactly one of both is named. */
async function runUpstream(
  name: keyof typeof ORDERS,
  options: Options & { readonly subjectKeyId: string },
): Promise<void> {
  const { subjectKeyId, json } = options;
  const { upstreamAuthoritySubjectKeyId: id } = await askServer(
    options,
    LocalAuthority,
    (client): Promise<Upstream> =>
      name === "taint"
        ? client.taintX509UpstreamAuthority({ subjectKeyId })
        : client.revokeX509UpstreamAuthority({ subjectKeyId }),
  );
  if (json === true) {
    printJson({ upstreamAuthoritySubjectKeyId: id });
  } else {
    print(`${DONE[name]} upstream authority:\n  Subject Key ID: ${id}`);
  }
}

interface Upstream {
  readonly upstreamAuthoritySubjectKeyId: string;
}

async function run(name: keyof typeof ORDERS, options: Options): Promise<void> {
  const { type, authorityId = "", subjectKeyId, json } = options;
  if (subjectKeyId !== undefined && authorityId === "") {
    await runUpstream(name, { ...options, subjectKeyId });
    return;
  }
  if (name !== "prepare" && (authorityId === "") === (subjectKeyId === undefined)) {
    throw new EveryhopError("usage", "one of `--authority-id` and `--subject-key-id` is needed", {
      hint: "`everyhop authority show` has the ids",
    });
  }
  if (name === "activate") {
    await waitForAgents(options);
  }
  const state = await askServer(options, LocalAuthority, (client) => ORDERS[name][type](client, authorityId));
  const document = documentOf(state);
  if (json === true) {
    printJson(document);
    return;
  }
  print(`${DONE[name]} ${NAMES[type]} authority:`);
  printState(document);
}

const ASK_AGAIN_MS = 100;

/** What a key signs that an agent has not heard of is refused on its machine: each is given a moment to. */
async function waitForAgents(options: Options): Promise<void> {
  const giveUpAt = Date.now() + (options.wait ?? 0) * 1_000;
  for (;;) {
    const progress = await askAdmin<BundleProgressDocument>(options, (admin) => admin.bundleProgress({})).catch(
      () => null,
    );
    const behind = progress?.agents.filter(({ current }) => current === false) ?? [];
    if (behind.length === 0) {
      return;
    }
    if (Date.now() >= giveUpAt) {
      const names = behind.slice(0, 5).map(({ spiffeId }) => spiffeId);
      note(`${behind.length} of ${progress?.agents.length} agents do not have the new key yet: ${names.join(", ")}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  }
}

interface StateDocument {
  readonly authorityId: string;
  readonly expiresAt?: string;
  readonly upstreamAuthoritySubjectKeyId?: string;
  readonly tainted?: boolean;
}

function documentOf(state: AuthorityState | undefined): StateDocument {
  const expiresAt = timeOfWire(state?.expiresAt ?? 0n);
  const upstream = state?.upstreamAuthoritySubjectKeyId ?? "";
  return {
    authorityId: state?.authorityId ?? "",
    ...(expiresAt === null ? {} : { expiresAt }),
    ...(upstream === "" ? {} : { upstreamAuthoritySubjectKeyId: upstream }),
  };
}

async function show(options: Options): Promise<void> {
  const { type, json } = options;
  const states = await askServer(
    options,
    LocalAuthority,
    (client): Promise<States> => (type === "x509" ? client.getX509AuthorityState({}) : client.getJWTAuthorityState({})),
  );
  const tainted = await askServer(options, Bundle, async (client) => taintedIds(await client.getBundle({}), type));
  const described = (state: AuthorityState | undefined): StateDocument | null =>
    state === undefined ? null : { ...documentOf(state), tainted: tainted.has(state.authorityId) };
  const document = {
    type,
    active: described(states.active),
    prepared: described(states.prepared),
    old: described(states.old),
  };
  if (json === true) {
    printJson(document);
    return;
  }
  for (const [word, key] of [
    ["Active", "active"],
    ["Prepared", "prepared"],
    ["Old", "old"],
  ] as const) {
    print(`${word} ${NAMES[type]} authority:`);
    const state = document[key];
    if (state === null) {
      print(`  No ${key} ${NAMES[type]} authority found`);
    } else {
      printState(state);
    }
  }
}

interface States {
  readonly active?: AuthorityState | undefined;
  readonly prepared?: AuthorityState | undefined;
  readonly old?: AuthorityState | undefined;
}

interface Taints {
  readonly x509Authorities: readonly { readonly asn1: Uint8Array; readonly tainted: boolean }[];
  readonly jwtAuthorities: readonly { readonly keyId: string; readonly tainted: boolean }[];
}

function taintedIds({ x509Authorities, jwtAuthorities }: Taints, type: Type): ReadonlySet<string> {
  return new Set(
    type === "x509"
      ? x509Authorities.filter((one) => one.tainted).map(({ asn1 }) => parseCertificate(asn1).subjectKeyId ?? "")
      : jwtAuthorities.filter((one) => one.tainted).map(({ keyId }) => keyId),
  );
}

function printState({ authorityId, expiresAt, upstreamAuthoritySubjectKeyId, tainted }: StateDocument): void {
  print(`  Authority ID: ${authorityId}`);
  if (expiresAt !== undefined) {
    print(`  Expires at: ${expiresAt}`);
  }
  if (upstreamAuthoritySubjectKeyId !== undefined) {
    print(`  Upstream authority Subject Key ID: ${upstreamAuthoritySubjectKeyId}`);
  }
  if (tainted === true) {
    print("  Tainted: yes");
  }
}
