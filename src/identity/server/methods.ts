/** Who may call what: every method of every service, and nothing else. SPEC: SPIRE pkg/server/authpolicy/policy_data.json. */

/**
 * `any`: everyone, unauthenticated too. `local`: who may open the admin socket. `agent`: a node with its current SVID.
 * `admin`, `downstream`: an identity whose registration entry says so.
 */
export type CallerClass = "any" | "local" | "agent" | "admin" | "downstream";

export type Limit = "attest" | "x509" | "jwt" | "status";

export interface MethodRule {
  readonly callers: readonly CallerClass[];
  /** Which of a peer's allowances a call draws on. */
  readonly limit?: Limit;
}

const ANY: MethodRule = { callers: ["any"] };
const AGENT: MethodRule = { callers: ["agent"] };
const LOCAL: MethodRule = { callers: ["local"] };
const ADMIN: MethodRule = { callers: ["local", "admin"] };
const DOWNSTREAM: MethodRule = { callers: ["downstream"] };

const each = (service: string, methods: Readonly<Record<string, MethodRule>>): [string, MethodRule][] =>
  Object.entries(methods).map(([method, rule]) => [`${service}/${method}`, rule]);

/** `package.Service/Method` → rule. INVARIANT: a method that is not in here is denied to everyone. */
export const METHODS: ReadonlyMap<string, MethodRule> = new Map([
  ...each("spire.api.server.agent.v1.Agent", {
    CountAgents: ADMIN,
    ListAgents: ADMIN,
    GetAgent: ADMIN,
    DeleteAgent: ADMIN,
    BanAgent: ADMIN,
    AttestAgent: { ...ANY, limit: "attest" },
    RenewAgent: { ...AGENT, limit: "x509" },
    CreateJoinToken: ADMIN,
    PostStatus: { ...AGENT, limit: "status" },
  }),
  ...each("spire.api.server.bundle.v1.Bundle", {
    CountBundles: ADMIN,
    GetBundle: ANY,
    AppendBundle: ADMIN,
    PublishJWTAuthority: DOWNSTREAM,
    PublishWITAuthority: DOWNSTREAM,
    ListFederatedBundles: ADMIN,
    GetFederatedBundle: { callers: ["local", "admin", "agent"] },
    BatchCreateFederatedBundle: ADMIN,
    BatchUpdateFederatedBundle: ADMIN,
    BatchSetFederatedBundle: ADMIN,
    BatchDeleteFederatedBundle: ADMIN,
  }),
  ...each("spire.api.server.entry.v1.Entry", {
    CountEntries: ADMIN,
    ListEntries: ADMIN,
    GetEntry: ADMIN,
    BatchCreateEntry: ADMIN,
    BatchUpdateEntry: ADMIN,
    BatchDeleteEntry: ADMIN,
    GetAuthorizedEntries: AGENT,
    SyncAuthorizedEntries: AGENT,
  }),
  ...each("spire.api.server.svid.v1.SVID", {
    MintX509SVID: { ...ADMIN, limit: "x509" },
    MintJWTSVID: { ...ADMIN, limit: "jwt" },
    MintWITSVID: { ...ADMIN, limit: "jwt" },
    BatchNewX509SVID: { ...AGENT, limit: "x509" },
    NewJWTSVID: { ...AGENT, limit: "jwt" },
    BatchNewWITSVID: { ...AGENT, limit: "jwt" },
    NewDownstreamX509CA: { ...DOWNSTREAM, limit: "x509" },
  }),
  ...each("spire.api.server.localauthority.v1.LocalAuthority", {
    GetJWTAuthorityState: ADMIN,
    PrepareJWTAuthority: ADMIN,
    ActivateJWTAuthority: ADMIN,
    TaintJWTAuthority: ADMIN,
    RevokeJWTAuthority: ADMIN,
    GetX509AuthorityState: ADMIN,
    PrepareX509Authority: ADMIN,
    ActivateX509Authority: ADMIN,
    TaintX509Authority: ADMIN,
    RevokeX509Authority: ADMIN,
    GetWITAuthorityState: ADMIN,
    PrepareWITAuthority: ADMIN,
    ActivateWITAuthority: ADMIN,
    TaintWITAuthority: ADMIN,
    RevokeWITAuthority: ADMIN,
    TaintX509UpstreamAuthority: ADMIN,
    RevokeX509UpstreamAuthority: ADMIN,
  }),
  ...each("everyhop.node.v1.Node", { Watch: { ...AGENT, limit: "status" } }),
  ...each("everyhop.admin.v1.Admin", {
    Status: LOCAL,
    Why: LOCAL,
    Kill: LOCAL,
    Restore: LOCAL,
    AuditCertificates: LOCAL,
    ExplainEntry: LOCAL,
  }),
  ...each("grpc.health.v1.Health", { Check: LOCAL, List: LOCAL, Watch: LOCAL }),
]);
