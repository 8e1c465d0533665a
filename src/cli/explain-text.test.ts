import assert from "node:assert/strict";
import { test } from "node:test";
import { describeEntry, describeWorkload } from "./explain-text.ts";

const NOW = Date.parse("2026-11-25T10:00:05Z");
const AGENT = "spiffe://example.com/spire/agent/join_token/t";

test("a process without an identity: what it is, who looked, what is missing, what the server knows", () => {
  const text = describeWorkload(
    {
      pid: 4711,
      process: { uid: 0, program: "/usr/bin/node", parentPid: 1 },
      selectors: ["unix:uid:0", "unix:path:/usr/bin/node"],
      attestors: [
        { kind: "unix", error: null },
        { kind: "k8s", error: "the kubelet refuses: 401", hint: "give it a token" },
      ],
      matched: [],
      identities: [],
      nearMisses: [
        {
          entryId: "e1",
          spiffeId: "spiffe://example.com/api",
          missing: ["unix:path:/usr/local/bin/node"],
          hints: [{ selector: "unix:path:/usr/local/bin/node", hint: "it runs /usr/bin/node" }],
        },
      ],
      agent: { spiffeId: AGENT, syncedAt: "2026-11-25T10:00:00.000Z", problem: null, entries: 1 },
      elsewhere: [
        {
          entryId: "e2",
          spiffeId: "spiffe://example.com/web",
          parentId: "spiffe://example.com/agent",
          message: "the parent is no agent's ID",
          hint: "name the nodes",
        },
      ],
      notSynced: ["e3"],
      agentOnServer: { spiffeId: AGENT, banned: true, cutOff: false, expired: false, expiresAt: "" },
      serverProblem: null,
    },
    NOW,
  );
  assert.equal(
    text,
    `process 4711 gets no identity: no entry matches it
  it runs /usr/bin/node as uid 0

agent ${AGENT}, 1 entry
  in step with the server 5 s ago, 2026-11-25T10:00:00.000Z
  it is BANNED: \`everyhop agent evict --spiffe-id ${AGENT}\` lifts that, and it attests anew

it has
  unix:uid:0
  unix:path:/usr/bin/node

attestors that failed
  k8s: the kubelet refuses: 401
    give it a token

the entries that come nearest:

not spiffe://example.com/api (entry e1): it lacks
  unix:path:/usr/local/bin/node
    it runs /usr/bin/node

not spiffe://example.com/web (entry e2), which matches: the parent is no agent's ID
    name the nodes

the server has these for it, and they have not reached the agent yet
  e3`,
  );
});

test("a process with identities, one of them not ready; the server not asked; nothing moves the cursor", () => {
  const text = describeWorkload(
    {
      pid: 1,
      selectors: ["unix:path:/tmp/\u001b[2Jx"],
      matched: ["a", "b"],
      identities: ["spiffe://example.com/a", "spiffe://example.com/b"],
      svids: [
        { entryId: "a", ready: true, failure: null },
        { entryId: "b", ready: false, failure: "the server is away" },
      ],
      nearMisses: [],
      agent: { spiffeId: AGENT, syncedAt: null },
      serverProblem: "nothing answers",
    },
    NOW,
  );
  assert.equal(
    text,
    `process 1 gets
  spiffe://example.com/a  (entry a)
  spiffe://example.com/b  (entry b), which has no SVID yet: the server is away

agent ${AGENT}
  never in step with the server

it has
  unix:path:/tmp/\\x1b[2Jx

the server was not asked (nothing answers): entries of other agents, expired ones and bans are not shown`,
  );
});

test("an entry that nobody hands out, and one that somebody does", () => {
  const entry = {
    id: "e",
    spiffeId: "spiffe://example.com/a",
    parentId: "spiffe://example.com/agent",
    selectors: ["unix:usr:a"],
  };
  assert.equal(
    describeEntry({
      entry,
      handedOutBy: [],
      agents: 0,
      obstacles: [{ reason: "dangling-parent", message: "no agent", hint: "make an alias" }],
      hints: [{ selector: "unix:usr:a", hint: "did you mean `unix:user:…`?" }],
    }),
    `nobody gets this identity: spiffe://example.com/a (entry e)
  parent spiffe://example.com/agent

for a workload that has
  unix:usr:a

no agent
    make an alias

no workload has unix:usr:a
    did you mean \`unix:user:…\`?`,
  );
  const agent = { spiffeId: AGENT, banned: false, cutOff: false, expired: false, expiresAt: "" };
  assert.match(
    describeEntry({ entry, handedOutBy: [agent], agents: 3, obstacles: [], hints: [] }),
    /^workloads of 3 agents get it: [\s\S]*agents\n {2}spiffe:[\s\S]*and 2 more$/,
  );
});
