import { createPrivateKey, generateKeyPairSync, sign } from "node:crypto";
import { join } from "node:path";
import type { Command } from "commander";
import type { SpiffeId } from "../core/spiffe/id.ts";
import { parseCertificate } from "../core/x509/certificate.ts";
import { buildCsr } from "../core/x509/csr-build.ts";
import { certificatesToPem, formatPem } from "../core/x509/pem.ts";
import { Bundle } from "../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { SVID } from "../gen/spire/api/server/svid/v1/svid_pb.js";
import { each, seconds, spiffeId, text, timeOfWire, wireId } from "./arguments.ts";
import { askServer } from "./ask-server.ts";
import { commandGroup } from "./command-group.ts";
import { addMeshOptions, type MeshOptions } from "./find-mesh.ts";
import { writeSvidFiles } from "./svid-files.ts";
import { print, printJson } from "./ui.ts";

interface Options extends MeshOptions {
  readonly spiffeId: SpiffeId;
  readonly ttl: number;
  readonly dns?: string[];
  readonly audience?: string[];
  readonly outDir?: string;
  readonly json?: boolean;
}

export function define(program: Command): void {
  const svid = commandGroup(program, "svid", "SVIDs: the identity documents of workloads");
  addMeshOptions(svid.command("mint"))
    .description("sign an SVID by hand, outside of registration and attestation")
    .requiredOption("--spiffe-id <id>", "the identity", spiffeId)
    .option("--ttl <duration>", "its life, `30m` or seconds (default: the server's)", seconds, 0)
    .option("--dns <name>", "a DNS name in the certificate; may be given several times", each(text))
    .option("--audience <name>", "mint a JWT-SVID for this audience instead; several times", each(text))
    .option("--out-dir <dir>", "write svid.0.pem, svid.0.key and bundle.0.pem there (default: print them)")
    .option("--json", "what was minted as JSON")
    .addHelpText(
      "after",
      `
Examples:
  everyhop svid mint --spiffe-id spiffe://example.com/ns/shop/sa/web --out-dir web
  everyhop svid mint --spiffe-id spiffe://example.com/ns/shop/sa/web --audience database`,
    )
    .action((options: Options) => (options.audience === undefined ? mintX509(options) : mintJwt(options)));
}

async function mintX509(options: Options): Promise<void> {
  const pair = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { format: "der", type: "spki" },
    privateKeyEncoding: { format: "der", type: "pkcs8" },
  });
  const key = createPrivateKey({ key: pair.privateKey, format: "der", type: "pkcs8" });
  const template = { spki: pair.publicKey, algorithm: "ecdsa-sha256", uris: [options.spiffeId] } as const;
  const csr = buildCsr({ ...template, dnsNames: options.dns ?? [] }, (info) => sign("sha256", info, key));
  const { svid } = await askServer(options, SVID, (svids) => svids.mintX509SVID({ csr, ttl: options.ttl }));
  const bundle = await askServer(options, Bundle, (bundles) =>
    bundles.getBundle({ outputMask: { x509Authorities: true } }),
  );
  const chain = svid?.certChain ?? [];
  const files = {
    "svid.0.pem": certificatesToPem(chain),
    "svid.0.key": formatPem("PRIVATE KEY", pair.privateKey),
    "bundle.0.pem": certificatesToPem(bundle.x509Authorities.map(({ asn1 }) => asn1)),
  };
  if (options.outDir !== undefined) {
    writeSvidFiles(options.outDir, files);
  }
  const { serial } = parseCertificate(chain[0] ?? new Uint8Array());
  const notAfter = timeOfWire(svid?.expiresAt ?? 0n);
  if (options.json === true) {
    const contents =
      options.outDir === undefined ? files : Object.keys(files).map((name) => join(options.outDir ?? "", name));
    printJson({ spiffeId: options.spiffeId, serial, notAfter, files: contents });
  } else if (options.outDir === undefined) {
    print(Object.values(files).join("").trimEnd());
  } else {
    print(`${options.spiffeId}, good until ${notAfter}, is in ${options.outDir}: ${Object.keys(files).join(", ")}`);
  }
}

async function mintJwt(options: Options): Promise<void> {
  const { svid } = await askServer(options, SVID, (svids) =>
    svids.mintJWTSVID({ id: wireId(options.spiffeId), audience: options.audience ?? [], ttl: options.ttl }),
  );
  const token = svid?.token ?? "";
  if (options.outDir !== undefined) {
    writeSvidFiles(options.outDir, { "jwt_svid.0.key": token });
  }
  if (options.json === true) {
    printJson({ spiffeId: options.spiffeId, token, expiresAt: timeOfWire(svid?.expiresAt ?? 0n) });
  } else if (options.outDir === undefined) {
    print(token);
  } else {
    print(`a JWT-SVID of ${options.spiffeId} is in ${options.outDir}/jwt_svid.0.key`);
  }
}
