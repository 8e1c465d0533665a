/** Who may call what: every method of every service, and nothing else. SPEC: SPIRE pkg/server/authpolicy/policy_data.json. */
import type { Right } from "../../core/entries/role.ts";
import { idText, type WireId } from "./wire.ts";

/**
 * `any`: everyone, unauthenticated too. `local`: who may open the admin socket. `agent`: a node with its current SVID.
 * `admin`, `downstream`: an identity whose registration entry says so.
 */
export type CallerClass = "any" | "local" | "agent" | "admin" | "downstream";

export type Limit = "attest" | "x509" | "jwt" | "status" | "admin";

export interface MethodRule {
  readonly callers: readonly CallerClass[];
  /** The right by which a role may call it too, within what the role covers. */
  readonly right?: Right;
  /** What the call is done to, for the scope of a role; null: to nothing that has an identity. */
  readonly subject?: (request: never) => string | null;
  /** It shows or changes more than any limited role covers: only a role over everything opens it. */
  readonly whole?: true;
  /** Which of a peer's allowances a call draws on. */
  readonly limit?: Limit;
}

const ANY: MethodRule = { callers: ["any"] };
const AGENT: MethodRule = { callers: ["agent"] };
const LOCAL: MethodRule = { callers: ["local"] };
/** An administrator's, and of those whose role has `right`. */
const admin = (right: Right): MethodRule => ({ callers: ["local", "admin"], right, limit: "admin" });
/** As `admin`, where there is nothing that a limited role could be limited to. */
const whole = (right: Right): MethodRule => ({ ...admin(right), whole: true });
const DOWNSTREAM: MethodRule = { callers: ["downstream"] };

const byId = ({ id }: { id?: WireId }): string => idText(id);
const bySpiffeId = ({ spiffeId }: { spiffeId: string }): string => spiffeId;

const each = (service: string, methods: Readonly<Record<string, MethodRule>>): [string, MethodRule][] =>
  Object.entries(methods).map(([method, rule]) => [`${service}/${method}`, rule]);

/** `package.Service/Method` → rule. INVARIANT: a method that is not in here is denied to everyone. */
export const METHODS: ReadonlyMap<string, MethodRule> = new Map([
  ...each("spire.api.server.agent.v1.Agent", {
    CountAgents: admin("agents:read"),
    ListAgents: admin("agents:read"),
    GetAgent: { ...admin("agents:read"), subject: byId },
    DeleteAgent: { ...admin("agents:write"), subject: byId },
    BanAgent: { ...admin("agents:write"), subject: byId },
    AttestAgent: { ...ANY, limit: "attest" },
    RenewAgent: { ...AGENT, limit: "x509" },
    CreateJoinToken: {
      ...admin("tokens:create"),
      subject: ({ agentId }: { agentId?: WireId }) => (agentId === undefined ? null : idText(agentId)),
    },
    PostStatus: { ...AGENT, limit: "status" },
  }),
  ...each("spire.api.server.bundle.v1.Bundle", {
    CountBundles: whole("bundles:read"),
    GetBundle: ANY,
    AppendBundle: whole("bundles:write"),
    PublishJWTAuthority: DOWNSTREAM,
    PublishWITAuthority: DOWNSTREAM,
    ListFederatedBundles: whole("bundles:read"),
    GetFederatedBundle: { callers: ["local", "admin", "agent"], right: "bundles:read", whole: true },
    BatchCreateFederatedBundle: whole("bundles:write"),
    BatchUpdateFederatedBundle: whole("bundles:write"),
    BatchSetFederatedBundle: whole("bundles:write"),
    BatchDeleteFederatedBundle: whole("bundles:write"),
  }),
  ...each("spire.api.server.entry.v1.Entry", {
    CountEntries: admin("entries:read"),
    ListEntries: admin("entries:read"),
    GetEntry: admin("entries:read"),
    BatchCreateEntry: admin("entries:write"),
    BatchUpdateEntry: admin("entries:write"),
    BatchDeleteEntry: admin("entries:write"),
    GetAuthorizedEntries: AGENT,
    SyncAuthorizedEntries: AGENT,
  }),
  ...each("spire.api.server.svid.v1.SVID", {
    MintX509SVID: { ...admin("svids:mint"), limit: "x509" },
    MintJWTSVID: { ...admin("svids:mint"), limit: "jwt", subject: byId },
    MintWITSVID: { ...admin("svids:mint"), limit: "jwt", subject: byId },
    BatchNewX509SVID: { ...AGENT, limit: "x509" },
    NewJWTSVID: { ...AGENT, limit: "jwt" },
    BatchNewWITSVID: { ...AGENT, limit: "jwt" },
    NewDownstreamX509CA: { ...DOWNSTREAM, limit: "x509" },
  }),
  ...each("spire.api.server.localauthority.v1.LocalAuthority", {
    GetJWTAuthorityState: whole("authorities:read"),
    PrepareJWTAuthority: whole("authorities:write"),
    ActivateJWTAuthority: whole("authorities:write"),
    TaintJWTAuthority: whole("authorities:write"),
    RevokeJWTAuthority: whole("authorities:write"),
    GetX509AuthorityState: whole("authorities:read"),
    PrepareX509Authority: whole("authorities:write"),
    ActivateX509Authority: whole("authorities:write"),
    TaintX509Authority: whole("authorities:write"),
    RevokeX509Authority: whole("authorities:write"),
    GetWITAuthorityState: whole("authorities:read"),
    PrepareWITAuthority: whole("authorities:write"),
    ActivateWITAuthority: whole("authorities:write"),
    TaintWITAuthority: whole("authorities:write"),
    RevokeWITAuthority: whole("authorities:write"),
    TaintX509UpstreamAuthority: whole("authorities:write"),
    RevokeX509UpstreamAuthority: whole("authorities:write"),
  }),
  ...each("spire.api.server.trustdomain.v1.TrustDomain", {
    ListFederationRelationships: whole("bundles:read"),
    GetFederationRelationship: whole("bundles:read"),
    BatchCreateFederationRelationship: whole("bundles:write"),
    BatchUpdateFederationRelationship: whole("bundles:write"),
    BatchDeleteFederationRelationship: whole("bundles:write"),
    RefreshBundle: whole("bundles:write"),
  }),
  ...each("everyhop.node.v1.Node", { Watch: { ...AGENT, limit: "status" } }),
  ...each("everyhop.admin.v1.Admin", {
    Status: whole("status:read"),
    Why: whole("status:read"),
    Kill: { ...admin("kills:write"), subject: bySpiffeId },
    Restore: { ...admin("kills:write"), subject: bySpiffeId },
    AuditCertificates: whole("audit:read"),
    AuditChanges: whole("audit:read"),
    BundleProgress: whole("bundles:read"),
    ExplainEntry: whole("entries:read"),
  }),
  ...each("grpc.health.v1.Health", { Check: LOCAL, List: LOCAL, Watch: LOCAL }),
]);
