import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { EntrySchema } from "../gen/spire/api/types/entry_pb.js";
import { warnOfSelectors } from "./selector-warning.ts";

test("a selector that no workload can have is warned of, in entries for workloads", (t) => {
  let said = "";
  t.mock.method(process.stderr, "write", (text: string) => {
    said += text;
    return true;
  });
  const entry = (parent: string, ...selectors: readonly string[]) => ({
    entry: create(EntrySchema, {
      parentId: { trustDomain: "example.com", path: parent },
      selectors: selectors.map((value) => ({ type: "unix", value })),
    }),
  });
  warnOfSelectors([entry("/spire/agent/a", "usr:web", "uid:1"), entry("/spire/server", "usr:nodes"), {}]);
  assert.match(said, /no workload has the selector `unix:usr:web`[\s\S]*did you mean `unix:user:…`/);
  assert.equal(said.match(/no workload has/g)?.length, 1);
});
