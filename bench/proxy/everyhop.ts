/** Our own pair: a mesh of two services started by `everyhop up`, so that what is measured is what users run. */
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MeshDocument } from "../../src/run/up/document.ts";
import type { Pair } from "./pair.ts";

const LAUNCHER = join(import.meta.dirname, "../../bin/everyhop.js");

const MESH = `trustDomain: example.com
policies: [policies/]
services:
  client:
    namespace: bench
    command: [node, backend.mjs]
    port: 8081
  server:
    namespace: bench
    labels: {app: server}
    command: [node, backend.mjs]
    port: 8080
`;

const POLICY = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: one, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [example.com/ns/bench/sa/client]}}]
`;

export interface EveryhopPair extends Pair {
  /** The service itself, for the direct call. */
  readonly backend: string;
}

export async function startEveryhopPair(folder: string): Promise<EveryhopPair> {
  const dir = join(folder, "mesh");
  mkdirSync(join(dir, "policies"), { recursive: true });
  writeFileSync(join(dir, "everyhop.yaml"), MESH);
  writeFileSync(join(dir, "policies/one.yaml"), POLICY);
  copyFileSync(join(import.meta.dirname, "backend.mjs"), join(dir, "backend.mjs"));
  const up = spawnSync(LAUNCHER, ["up", dir, "--detach", "--json"], { encoding: "utf8" });
  if (up.status !== 0) {
    throw new Error(`everyhop up: ${up.stdout}${up.stderr}`);
  }
  const mesh = JSON.parse(up.stdout) as MeshDocument;
  return {
    name: "everyhop pair",
    address: mesh.services.client?.outbound.server ?? "",
    backend: mesh.services.server?.app ?? "",
    pids: ["client", "server"].map((service) => sidecarOf(mesh.stateDir, service)),
    stop: () =>
      new Promise((resolve) => spawn(LAUNCHER, ["down", dir], { stdio: "ignore" }).once("exit", () => resolve())),
  };
}

/** The sidecar is the process that was given its configuration. */
function sidecarOf(stateDir: string, service: string): number {
  const config = join(stateDir, "sidecars", service, "proxy.yaml");
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      if (words.includes("proxy") && words.includes(config)) {
        return Number(pid);
      }
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error(`no sidecar runs with ${config}`);
}
