/** What the engine says of a container. Its answer is read field by field: anything else than expected is an error. */
import { EveryhopError } from "../../../../core/base/errors.ts";
import { at, isRecord, textRecord } from "../document.ts";

export interface EngineContainer {
  readonly labels: Readonly<Record<string, string>>;
  /** `NAME=value`, as in the container's configuration. */
  readonly environment: readonly string[];
  /** As it was asked for, `nginx:1.27`; empty where it has none. */
  readonly image: string;
  readonly imageDigest: string | null;
}

const DIGEST = /^(?:sha256:)?[0-9a-f]{64}$/;

/** Reads the answer to "inspect container". Errors: `unavailable`, `not-found` where it does not run. */
export function readContainer(body: unknown, id: string): EngineContainer {
  if (at(body, "Id") !== id) {
    throw unexpected("says nothing of this container");
  }
  if (at(body, "State", "Running") !== true) {
    throw new EveryhopError("not-found", `the container ${id} does not run`);
  }
  const config = at(body, "Config");
  if (!isRecord(config)) {
    throw unexpected("gives no configuration of the container");
  }
  const labels = textRecord(config["Labels"]);
  const environment = config["Env"] ?? [];
  const image = config["Image"] ?? "";
  if (labels === null || typeof image !== "string" || !isTextList(environment)) {
    throw unexpected("gives a configuration of another form");
  }
  const digest = at(body, "Image");
  const imageDigest = typeof digest === "string" && DIGEST.test(digest) ? withAlgorithm(digest) : null;
  return { labels, environment, image, imageDigest };
}

/** Reads the answer to "inspect image". */
export function readImageDigest(body: unknown): string {
  const id = at(body, "Id");
  if (typeof id !== "string" || !DIGEST.test(id)) {
    throw unexpected("gives no digest of the image");
  }
  return withAlgorithm(id);
}

export function containerSelectors({ labels, environment, image }: EngineContainer): string[] {
  return [
    ...Object.entries(labels).map(([key, value]) => `docker:label:${key}:${value}`),
    ...environment.map((variable) => `docker:env:${variable}`),
    ...(image === "" ? [] : [`docker:image_id:${image}`]),
  ];
}

function withAlgorithm(digest: string): string {
  return digest.startsWith("sha256:") ? digest : `sha256:${digest}`;
}

function isTextList(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}

function unexpected(what: string): EveryhopError {
  return new EveryhopError("unavailable", `the container engine ${what}`);
}
