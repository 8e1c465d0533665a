import type { Command } from "commander";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { Agent } from "../gen/spire/api/server/agent/v1/agent_pb.js";
import { seconds, spiffeId, timeOfWire, wireId } from "./arguments.ts";
import { askServer } from "./ask-server.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { print, printJson } from "./ui.ts";

interface Options extends MeshOptions {
  readonly spiffeId?: SpiffeId;
  readonly ttl: number;
  readonly json?: boolean;
}

export function define(program: Command): void {
  const token = program.command("token").description("join tokens, with which agents prove themselves once");
  addMeshOptions(token.command("generate"))
    .description("make a token; one agent can join with it, once")
    .option("--ttl <duration>", "how long it is good: `10m`, or seconds", seconds, 600)
    .option("--spiffe-id <id>", "an identity that the agent also stands for, as parent of entries", spiffeId)
    .option("--json", "the token as JSON")
    .addHelpText(
      "after",
      `
Examples:
  everyhop token generate --ttl 5m
  everyhop token generate --spiffe-id spiffe://example.com/node/web --json`,
    )
    .action(generate);
}

async function generate(options: Options): Promise<void> {
  const agentId = options.spiffeId === undefined ? {} : { agentId: wireId(options.spiffeId) };
  const { value, expiresAt } = await askServer(options, Agent, (agents) =>
    agents.createJoinToken({ ttl: options.ttl, ...agentId }),
  );
  if (options.json === true) {
    printJson({ token: value, expiresAt: timeOfWire(expiresAt) });
  } else {
    print(`Token: ${value}`);
  }
}
