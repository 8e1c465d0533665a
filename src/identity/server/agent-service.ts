import type { MessageInitShape } from "@bufbuild/protobuf";
import { EveryhopError } from "../../core/base/errors.ts";
import { covers, type Scope } from "../../core/entries/role.ts";
import type {
  Agent,
  CountAgentsRequest_Filter,
  ListAgentsRequest_Filter,
} from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import type { AgentMask, AgentSchema } from "../../gen/spire/api/types/agent_pb.js";
import type { Log } from "../../io/log.ts";
import type { NodeRecord } from "../../io/store/store.ts";
import { type AttestCall, converse } from "./attest-call.ts";
import type { BundleProgress } from "./bundle-progress.ts";
import { selectorFilter } from "./filter.ts";
import type { CallContext, GuardedHandlers } from "./guard.ts";
import type { Nodes } from "./nodes.ts";
import type { Registry } from "./registry.ts";
import { x509ToWire } from "./svid-service.ts";
import { idFromWire, idToWire, masked, milliseconds, page, seconds, selectorToWire } from "./wire.ts";

/** spire.api.server.agent.v1.Agent. */
export function agentService(
  registry: Registry,
  nodes: Nodes,
  progress: BundleProgress,
  log: Log,
): GuardedHandlers<typeof Agent> {
  return {
    countAgents: ({ filter }, { scope }) => ({ count: visible(registry, scope).filter(agentFilter(filter)).length }),
    listAgents({ filter, outputMask, pageSize, pageToken }, { scope }) {
      const found = page(visible(registry, scope).filter(agentFilter(filter)), ({ id }) => id, pageSize, pageToken);
      return { agents: found.items.map((node) => agentToWire(node, outputMask)), nextPageToken: found.nextPageToken };
    },
    getAgent({ id, outputMask }) {
      const node = registry.node(idFromWire(id, "agent ID"));
      if (node === null) {
        throw new EveryhopError("not-found", "agent not found");
      }
      return agentToWire(node, outputMask);
    },
    async deleteAgent({ id }) {
      await nodes.evict(idFromWire(id, "agent ID"));
      return {};
    },
    async banAgent({ id }) {
      await nodes.ban(idFromWire(id, "agent ID"));
      return {};
    },
    attestAgent: (call, context) => attest(call, context, nodes, log),
    async renewAgent({ params }, { node }) {
      if (params === undefined || params.csr.length === 0) {
        throw new EveryhopError("invalid-argument", params === undefined ? "params cannot be nil" : "missing CSR");
      }
      return { svid: x509ToWire(await nodes.renew(node as NodeRecord, params.csr)) };
    },
    async createJoinToken({ ttl, token, agentId }) {
      const { value, expiresAtMs } = await nodes.createJoinToken({
        ttlMs: milliseconds(ttl),
        ...(token === "" ? {} : { value: token }),
        ...(agentId === undefined ? {} : { agentId: idFromWire(agentId, "agent ID") }),
      });
      return { value, expiresAt: seconds(expiresAtMs) };
    },
    async postStatus({ agentVersion, currentBundleSerial }, { node }) {
      if (agentVersion.length > MAX_VERSION || !/^[\x20-\x7e]*$/.test(agentVersion)) {
        throw new EveryhopError(
          "invalid-argument",
          `agent version is not of at most ${MAX_VERSION} printable characters`,
        );
      }
      await nodes.status(node as NodeRecord, agentVersion);
      progress.saw((node as NodeRecord).id, currentBundleSerial);
      return {};
    },
  };
}

/** The agents a caller may know of. */
function visible(registry: Registry, scope: Scope | null): readonly NodeRecord[] {
  return scope === null ? registry.nodes() : registry.nodes().filter(({ id }) => covers(scope, id));
}

const MAX_VERSION = 255;

async function attest(call: AttestCall, { caller }: CallContext, nodes: Nodes, log: Log): Promise<void> {
  const address = caller.kind === "remote" ? caller.address : "";
  const { params, challenge } = converse(call);
  const request = await params();
  const { svid, node } = await nodes.attest(request, { address, challenge });
  log.info("an agent attested", { agent: node.id, attestation: request.type, address });
  call.write({ step: { case: "result", value: { svid: x509ToWire(svid), reattestable: node.canReattest } } });
  call.end();
}

function agentToWire(node: NodeRecord, mask?: AgentMask): MessageInitShape<typeof AgentSchema> {
  const message = {
    id: idToWire(node.id),
    attestationType: node.attestationType,
    x509svidSerialNumber: decimal(node.serial),
    x509svidExpiresAt: seconds(node.expiresAt),
    selectors: node.selectors.map(selectorToWire),
    banned: node.banned,
    canReattest: node.canReattest,
    agentVersion: node.agentVersion,
  };
  return masked(message, mask, ["id"]);
}

/** SPIRE writes serial numbers in decimal. */
function decimal(serial: string): string {
  return serial === "" ? "" : BigInt(`0x${serial}`).toString();
}

function agentFilter(
  filter: ListAgentsRequest_Filter | CountAgentsRequest_Filter | undefined,
): (node: NodeRecord) => boolean {
  const tests: ((node: NodeRecord) => boolean)[] = [];
  if (filter === undefined) {
    return () => true;
  }
  const { byAttestationType, bySelectorMatch, byBanned, byCanReattest, byExpiresBefore } = filter;
  if (byAttestationType !== "") {
    tests.push((node) => node.attestationType === byAttestationType);
  }
  if (bySelectorMatch !== undefined) {
    const matches = selectorFilter(bySelectorMatch);
    tests.push((node) => matches(node.selectors));
  }
  if (byBanned !== undefined) {
    tests.push((node) => node.banned === byBanned);
  }
  if (byCanReattest !== undefined) {
    tests.push((node) => node.canReattest === byCanReattest);
  }
  if (byExpiresBefore !== "") {
    const before = parseTime(byExpiresBefore);
    tests.push((node) => node.expiresAt < before);
  }
  return (node) => tests.every((test) => test(node));
}

/** SPIRE sends Go's `2006-01-02 15:04:05 -0700 -07`. */
function parseTime(text: string): number {
  const go = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d) [+-]\d\d(\d\d)?$/.exec(text);
  const ms = Date.parse(go === null ? text : `${go[1]}T${go[2]}${go[3]}:${go[4]}`);
  if (Number.isNaN(ms)) {
    throw new EveryhopError("invalid-argument", `\`${text.slice(0, 64)}\` is not a time`);
  }
  return ms;
}
