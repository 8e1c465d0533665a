/** Shapes that several configurations have. */
import { refined, type Shape, string } from "../core/base/validate.ts";
import { type SpiffeId, spiffeIdFault } from "../core/spiffe/id.ts";

export const spiffeId: Shape<SpiffeId> = refined(string(), (text, at) => {
  const fault = spiffeIdFault(text);
  return fault === null ? (text as SpiffeId) : at.fault(`\`${text}\` is not a SPIFFE ID: ${fault}`);
});

export const hostPort = (): Shape<string> =>
  refined(string({ what: "`host:port`" }), (text, at) => {
    const port = Number(/^(?:\[[0-9a-fA-F:.]+\]|[^:[\]\s]+):(\d{1,5})$/.exec(text)?.[1] ?? -1);
    return port >= 0 && port <= 65_535 ? text : at.fault(`\`${text}\` is not \`host:port\``);
  });
