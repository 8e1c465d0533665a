/** `spire-server healthcheck`. */
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../gen/grpc/health/health_pb.js";
import { print } from "../ui.ts";
import { ask, type Commands, serverCommand } from "./command.ts";
import { flag, type Given, UsageError } from "./flags.ts";

async function healthcheck(given: Given): Promise<void> {
  if (given.flag("verbose")) {
    print("Checking server health...");
  }
  const { status } = await ask(given, Health, (client) => client.check({ service: "" })).catch((error: Error) => {
    throw new UsageError(
      `server is unhealthy: ${given.flag("verbose") ? error.message : "unable to determine health"}`,
    );
  });
  if (status !== Serving.SERVING) {
    throw new UsageError(`server is unhealthy: server returned status "${Serving[status]}"`);
  }
  print("Server is healthy.");
}

export const HEALTH_COMMANDS: Commands = {
  healthcheck: serverCommand(
    "Determines server health status",
    { shallow: flag("Perform a less stringent health check"), verbose: flag("Print verbose information") },
    healthcheck,
  ),
};
