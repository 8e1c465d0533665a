import assert from "node:assert/strict";
import { test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import type { BundleProgressDocument } from "../../core/api/admin.ts";
import { Admin } from "../../gen/everyhop/admin/admin_pb.js";
import { Agent } from "../../gen/spire/api/server/agent/v1/agent_pb.js";
import { testServer } from "./fixture.ts";

test("which agents have the newest bundle, as they said; one that said nothing is not known", async (t) => {
  const server = await testServer(t);
  const [one, other] = [await server.agent(), await server.agent()];
  const progress = async () => {
    const { sequence, agents } = toJson(
      StructSchema,
      await server.local(Admin).bundleProgress({}),
    ) as unknown as BundleProgressDocument;
    assert.equal(sequence, String(server.identity.bundles.own.value.sequence));
    return new Map(agents.map(({ spiffeId, current }) => [spiffeId, current]));
  };
  const sequence = () => server.identity.bundles.own.value.sequence;
  await server.remote(Agent, one).postStatus({ currentBundleSerial: sequence() });
  await server.remote(Agent, other).postStatus({ agentVersion: "1.15.3" });
  assert.deepEqual(
    await progress(),
    new Map(
      [
        [one.id, true],
        [other.id, null],
      ].sort() as [typeof one.id, boolean | null][],
    ),
  );
  await server.authority.x509.prepare();
  assert.equal((await progress()).get(one.id), false, "a new key is there that it does not have");
  await server.remote(Agent, one).postStatus({ currentBundleSerial: sequence() });
  assert.equal((await progress()).get(one.id), true);
  await server.identity.nodes.evict(one.id);
  assert.equal((await progress()).has(one.id), false);
});
