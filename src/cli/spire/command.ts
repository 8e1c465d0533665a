/** What the commands of the `spire-server` and `spire-agent` shims are made of. */
import { existsSync } from "node:fs";
import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { parseDurationMs } from "../../core/base/duration.ts";
import { selectorFault } from "../../core/entries/selector.ts";
import { type SpiffeId, spiffeIdFault } from "../../core/spiffe/id.ts";
import type { RpcClient } from "../../io/rpc/adapter.ts";
import { DEFAULT_SERVER_SOCKET } from "../../run/spire/sockets.ts";
import { type WireSelector, wireId } from "../arguments.ts";
import { askServer } from "../ask-server.ts";
import { print } from "../ui.ts";
import { type Flags, type Given, text, UsageError } from "./flags.ts";

export interface Command {
  readonly synopsis: string;
  readonly flags: Flags;
  /** A thrown UsageError, or an error of ours, is said on standard error, with exit code 1. */
  run(given: Given): Promise<void>;
}

export type Commands = Readonly<Record<string, Command>>;

const SERVER_FLAGS: Flags = {
  socketPath: text(
    `Path to the SPIRE Server API socket (default "${DEFAULT_SERVER_SOCKET}", then the mesh of this folder)`,
  ),
  instance: text("Not used here"),
  output: text("Desired output format (pretty, json); default: pretty."),
};

/** A command that asks the server. */
export function serverCommand(synopsis: string, flags: Flags, run: (given: Given) => Promise<void>): Command {
  return { synopsis, flags: { ...SERVER_FLAGS, ...flags }, run };
}

/** SPIRE's default socket where one is there, else the mesh of the current folder. */
export function ask<M extends GenServiceMethods, T>(
  given: Given,
  service: GenService<M>,
  question: (client: RpcClient<GenService<M>>) => Promise<T>,
): Promise<T> {
  const named = given.text("socketPath") || (existsSync(DEFAULT_SERVER_SOCKET) ? DEFAULT_SERVER_SOCKET : "");
  return askServer(named === "" ? {} : { adminSocket: named }, service, question);
}

export function isJson(given: Given): boolean {
  const output = given.text("output") || "pretty";
  if (output !== "pretty" && output !== "json") {
    throw new UsageError(`invalid value "${output}" for flag -output: unknown format option: ${output}`);
  }
  return output === "json";
}

/** The answer in protojson with `-output json`, else as `pretty` prints it. */
export function answer<D extends DescMessage>(
  given: Given,
  schema: D,
  message: MessageShape<D>,
  pretty: (message: MessageShape<D>) => void,
): void {
  if (isJson(given)) {
    print(JSON.stringify(toJson(schema, message, { useProtoFieldName: true, alwaysEmitImplicit: true })));
  } else {
    pretty(message);
  }
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** A SPIFFE ID as the services take it. */
export function readId(value: string, what = "SPIFFE ID"): { trustDomain: string; path: string } {
  const fault = spiffeIdFault(value);
  if (fault !== null) {
    throw new UsageError(`error parsing ${what} "${value}": ${fault}`);
  }
  return wireId(value as SpiffeId);
}

export function readSelector(value: string): WireSelector {
  const fault = selectorFault(value);
  if (fault !== null) {
    throw new UsageError(`selector "${value}": ${fault}`);
  }
  const colon = value.indexOf(":");
  return { type: value.slice(0, colon), value: value.slice(colon + 1) };
}

/** Seconds, of a duration such as `1h`. */
export function readDuration(given: Given, name: string): number {
  const value = given.text(name);
  const ms = value === "" || value === "0" ? 0 : parseDurationMs(value);
  if (ms === null) {
    throw new UsageError(`invalid value "${value}" for flag -${name}: parse error`);
  }
  return Math.ceil(ms / 1_000);
}

/** Go prints a time in UTC as `2026-01-31 12:00:00 +0000 UTC`. */
export function goTime(seconds: bigint): string {
  return `${new Date(Number(seconds) * 1_000).toISOString().slice(0, 19).replace("T", " ")} +0000 UTC`;
}

export const required = (given: Given, name: string, message: string): string => {
  const value = given.text(name);
  if (value === "") {
    throw new UsageError(message);
  }
  return value;
};

/** Every page of a list. */
export async function pages<P extends { readonly nextPageToken: string }, T>(
  next: (pageToken: string) => Promise<P>,
  items: (page: P) => readonly T[],
): Promise<T[]> {
  const all: T[] = [];
  let pageToken = "";
  do {
    const page = await next(pageToken);
    all.push(...items(page));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return all;
}
