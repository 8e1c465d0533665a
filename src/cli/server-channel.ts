/** How a command reaches the server: over its admin socket, or over the network with an identity that may administer it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";
import { Cell } from "../core/base/cell.ts";
import { EveryhopError } from "../core/base/errors.ts";
import { serverId, type TrustDomain, trustDomainOf } from "../core/spiffe/id.ts";
import type { X509Bundles, X509Svid } from "../core/spiffe/svid.ts";
import { bundlesOf, identityOf, verifyX509Svid } from "../core/spiffe/x509-svid.ts";
import { parseCertificate } from "../core/x509/certificate.ts";
import { certificatesFromPem, parsePem } from "../core/x509/pem.ts";
import { systemClock } from "../io/clock.ts";
import { makeLog } from "../io/log.ts";
import { SPIFFE_CHANNEL_OPTIONS, spiffeCredentials } from "../io/rpc/channel.ts";
import { workloadSocket } from "../workload/socket.ts";
import { watchX509 } from "../workload/workload-api.ts";
import { adminTarget, type MeshOptions } from "./find-mesh.ts";

export interface ServerChannel {
  readonly target: string;
  readonly credentials: ChannelCredentials;
  readonly options: ChannelOptions;
  /** What a person knows it by. */
  readonly name: string;
}

/** Errors: `unavailable`, `permission-denied` where this process has no identity, `file-missing`. */
export async function serverChannel(options: MeshOptions): Promise<ServerChannel> {
  if (options.server === undefined) {
    const target = adminTarget(options);
    const name = target.replace(/^unix:/, "");
    return { target, credentials: credentials.createInsecure(), options: {}, name };
  }
  const { svid, bundles } = options.svidDir === undefined ? await ownIdentity() : identityFromFiles(options.svidDir);
  const domain = trustDomainOf(svid.id);
  const channel = spiffeCredentials({
    svid: new Cell<X509Svid | null>(svid),
    authorities: new Cell(bundles.get(domain) ?? []),
    refuse: (chain) => serverFault(chain, domain, bundles),
  });
  return { target: options.server, credentials: channel, options: SPIFFE_CHANNEL_OPTIONS, name: options.server };
}

/** INVARIANT: an administrator's commands go to the server of its own trust domain, and to nobody else. */
function serverFault(chain: readonly Uint8Array[], domain: TrustDomain, bundles: X509Bundles): string | null {
  const verified = verifyX509Svid(chain, bundlesOf(bundles), systemClock.now());
  if (!verified.ok) {
    return verified.message;
  }
  const expected = serverId(domain);
  return verified.id === expected ? null : `the server is \`${verified.id}\`, not \`${expected}\``;
}

interface Identity {
  readonly svid: X509Svid;
  readonly bundles: X509Bundles;
}

const AGENT_TIMEOUT_MS = 5_000;

/** Our own, from the local agent. */
function ownIdentity(): Promise<Identity> {
  const log = makeLog("cli", { level: "error" });
  const source = watchX509({ socket: workloadSocket(undefined, process.env), log, clock: systemClock });
  return new Promise<Identity>((resolve, reject) => {
    const refuse = (code: "unavailable" | "permission-denied", message: string): void =>
      reject(
        new EveryhopError(code, message, {
          hint: "name the agent with SPIFFE_ENDPOINT_SOCKET, or an identity with `--svid-dir DIR` (see `everyhop svid fetch`)",
        }),
      );
    const settle = (): void => {
      const { state, svid, bundles } = source;
      if (svid.value !== null) {
        resolve({ svid: svid.value, bundles: bundles.value });
      } else if (state.value.kind === "denied") {
        refuse("permission-denied", `this process has no identity: ${state.value.message}`);
      }
    };
    const timer = setTimeout(() => refuse("unavailable", "no agent gave this process an identity"), AGENT_TIMEOUT_MS);
    timer.unref();
    source.state.watch(settle);
    settle();
  }).finally(() => source.close());
}

/** As `everyhop svid fetch --out-dir` writes it. */
function identityFromFiles(dir: string): Identity {
  const chain = certificatesFromPem(readText(join(dir, "svid.0.pem")));
  const authorities = certificatesFromPem(readText(join(dir, "bundle.0.pem")));
  const key = parsePem(readText(join(dir, "svid.0.key"))).find(({ label }) => label === "PRIVATE KEY");
  const leaf = parseCertificate(chain[0] ?? new Uint8Array());
  const identity = identityOf(leaf);
  if (!identity.ok || key === undefined) {
    throw new EveryhopError("invalid-argument", `\`${dir}\` holds no X.509-SVID with its key`, {
      hint: "`everyhop svid fetch --out-dir DIR` writes one",
    });
  }
  const { serial, notBeforeMs: notBefore, notAfterMs: notAfter } = leaf;
  const svid = { id: identity.id, chain, keyDer: key.der, serial, notBefore, notAfter, hint: "" };
  return { svid, bundles: new Map([[trustDomainOf(identity.id), authorities]]) };
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new EveryhopError("file-missing", `cannot read \`${file}\`: ${(error as Error).message}`, {
      hint: "`everyhop svid fetch --out-dir DIR` writes svid.0.pem, svid.0.key and bundle.0.pem",
      cause: error,
    });
  }
}
