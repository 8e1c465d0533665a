/** `spire-server localauthority x509|jwt show|prepare|activate|taint|revoke`, and `upstreamauthority taint|revoke`. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import {
  ActivateJWTAuthorityResponseSchema,
  ActivateX509AuthorityResponseSchema,
  type AuthorityState,
  GetJWTAuthorityStateResponseSchema,
  GetX509AuthorityStateResponseSchema,
  LocalAuthority,
  PrepareJWTAuthorityResponseSchema,
  PrepareX509AuthorityResponseSchema,
  RevokeJWTAuthorityResponseSchema,
  RevokeX509AuthorityResponseSchema,
  RevokeX509UpstreamAuthorityResponseSchema,
  TaintJWTAuthorityResponseSchema,
  TaintX509AuthorityResponseSchema,
  TaintX509UpstreamAuthorityResponseSchema,
} from "../../gen/spire/api/server/localauthority/v1/localauthority_pb.js";
import type { RpcClient } from "../../io/rpc/adapter.ts";
import { print } from "../ui.ts";
import { answer, ask, type Command, type Commands, goTime, required, serverCommand } from "./command.ts";
import { type Given, text } from "./flags.ts";

type Client = RpcClient<typeof LocalAuthority>;

function stateText(state: AuthorityState): string {
  const upstream = state.upstreamAuthoritySubjectKeyId;
  const above = upstream === "" ? "" : `\n  Upstream authority Subject Key ID: ${upstream}`;
  return `  Authority ID: ${state.authorityId}\n  Expires at: ${goTime(state.expiresAt)}${above}`;
}

interface States {
  readonly active?: AuthorityState | undefined;
  readonly prepared?: AuthorityState | undefined;
  readonly old?: AuthorityState | undefined;
}

function showStates(kind: string, { active, prepared, old }: States): void {
  const one = (title: string, state: AuthorityState | undefined) =>
    `${title} ${kind} authority:\n${state === undefined ? `  No ${title.toLowerCase()} ${kind} authority found` : stateText(state)}`;
  print([one("Active", active), one("Prepared", prepared), one("Old", old)].join("\n\n"));
}

const ID = { authorityID: text("The authority ID of the authority") };

/** An order that ends with the state of one authority. */
function order<D extends DescMessage>(
  synopsis: string,
  schema: D,
  call: (client: Client, authorityId: string) => Promise<MessageShape<D>>,
  title: string,
  stateOf: (message: MessageShape<D>) => AuthorityState | undefined,
  needsId = true,
): Command {
  return serverCommand(synopsis, needsId ? ID : {}, async (given: Given) => {
    const id = needsId ? required(given, "authorityID", "an authority ID is required") : "";
    const response = await ask(given, LocalAuthority, (client) => call(client, id));
    answer(given, schema, response, (message) => {
      const state = stateOf(message);
      print(`${title}:\n${state === undefined ? "" : stateText(state)}`);
    });
  });
}

function upstream<D extends DescMessage & { readonly typeName: string }>(
  synopsis: string,
  schema: D,
  call: (client: Client, subjectKeyId: string) => Promise<MessageShape<D>>,
  title: string,
): Command {
  const flags = {
    subjectKeyID: text("The Subject Key Identifier of the CA certificate of the upstream X.509 authority"),
  };
  return serverCommand(synopsis, flags, async (given: Given) => {
    const missing = "the Subject Key ID of the X.509 upstream authority is required";
    const id = required(given, "subjectKeyID", missing);
    const response = await ask(given, LocalAuthority, (client) => call(client, id));
    answer(given, schema, response, () => print(`${title}:\n  Subject Key ID: ${id}`));
  });
}

const X509: Commands = {
  "localauthority x509 show": serverCommand("Shows the local X.509 authorities", {}, async (given) => {
    const response = await ask(given, LocalAuthority, (client) => client.getX509AuthorityState({}));
    answer(given, GetX509AuthorityStateResponseSchema, response, (states) => showStates("X.509", states));
  }),
  "localauthority x509 prepare": order(
    "Prepares a new X.509 authority for use by generating a new key and X.509 certificate",
    PrepareX509AuthorityResponseSchema,
    (client) => client.prepareX509Authority({}),
    "Prepared X.509 authority",
    (message) => message.preparedAuthority,
    false,
  ),
  "localauthority x509 activate": order(
    "Activates a prepared X.509 authority for use",
    ActivateX509AuthorityResponseSchema,
    (client, authorityId) => client.activateX509Authority({ authorityId }),
    "Activated X.509 authority",
    (message) => message.activatedAuthority,
  ),
  "localauthority x509 taint": order(
    "Marks the previously active X.509 authority as being tainted",
    TaintX509AuthorityResponseSchema,
    (client, authorityId) => client.taintX509Authority({ authorityId }),
    "Tainted X.509 authority",
    (message) => message.taintedAuthority,
  ),
  "localauthority x509 revoke": order(
    "Revokes the previously active X.509 authority by removing it from the bundle",
    RevokeX509AuthorityResponseSchema,
    (client, authorityId) => client.revokeX509Authority({ authorityId }),
    "Revoked X.509 authority",
    (message) => message.revokedAuthority,
  ),
};

const JWT: Commands = {
  "localauthority jwt show": serverCommand("Shows the local JWT authorities", {}, async (given) => {
    const response = await ask(given, LocalAuthority, (client) => client.getJWTAuthorityState({}));
    answer(given, GetJWTAuthorityStateResponseSchema, response, (states) => showStates("JWT", states));
  }),
  "localauthority jwt prepare": order(
    "Prepares a new JWT authority for use by generating a new key",
    PrepareJWTAuthorityResponseSchema,
    (client) => client.prepareJWTAuthority({}),
    "Prepared JWT authority",
    (message) => message.preparedAuthority,
    false,
  ),
  "localauthority jwt activate": order(
    "Activates a prepared JWT authority for use",
    ActivateJWTAuthorityResponseSchema,
    (client, authorityId) => client.activateJWTAuthority({ authorityId }),
    "Activated JWT authority",
    (message) => message.activatedAuthority,
  ),
  "localauthority jwt taint": order(
    "Marks the previously active JWT authority as being tainted",
    TaintJWTAuthorityResponseSchema,
    (client, authorityId) => client.taintJWTAuthority({ authorityId }),
    "Tainted JWT authority",
    (message) => message.taintedAuthority,
  ),
  "localauthority jwt revoke": order(
    "Revokes the previously active JWT authority by removing it from the bundle",
    RevokeJWTAuthorityResponseSchema,
    (client, authorityId) => client.revokeJWTAuthority({ authorityId }),
    "Revoked JWT authority",
    (message) => message.revokedAuthority,
  ),
};

const UPSTREAM: Commands = {
  "upstreamauthority taint": upstream(
    "Marks the provided X.509 upstream authority as being tainted",
    TaintX509UpstreamAuthorityResponseSchema,
    (client, subjectKeyId) => client.taintX509UpstreamAuthority({ subjectKeyId }),
    "Tainted X.509 upstream authority",
  ),
  "upstreamauthority revoke": upstream(
    "Revokes the previously active X.509 upstream authority by removing it from the bundle",
    RevokeX509UpstreamAuthorityResponseSchema,
    (client, subjectKeyId) => client.revokeX509UpstreamAuthority({ subjectKeyId }),
    "Revoked X.509 upstream authority",
  ),
};

export const AUTHORITY_COMMANDS: Commands = { ...X509, ...JWT, ...UPSTREAM };
