import type { Command } from "commander";
import { defineCheck } from "./policy-check.ts";
import { defineDecide } from "./policy-decide.ts";
import { defineTest } from "./policy-test.ts";

export function define(program: Command): void {
  const policy = program.command("policy").description("check, decide, test: Istio's security policies without a mesh");
  defineCheck(policy);
  defineDecide(policy);
  defineTest(policy);
}
