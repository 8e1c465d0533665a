/** `spire-server x509 mint`, `spire-server jwt mint`. */
import { createPrivateKey, generateKeyPairSync, sign } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildCsr } from "../../core/x509/csr-build.ts";
import { certificatesToPem, formatPem } from "../../core/x509/pem.ts";
import { Bundle } from "../../gen/spire/api/server/bundle/v1/bundle_pb.js";
import { MintJWTSVIDResponseSchema, SVID } from "../../gen/spire/api/server/svid/v1/svid_pb.js";
import { writeSvidFiles } from "../svid-files.ts";
import { print } from "../ui.ts";
import { answer, ask, type Commands, isJson, readDuration, readId, required, serverCommand } from "./command.ts";
import { type Given, text, texts, UsageError } from "./flags.ts";

async function mintX509(given: Given): Promise<void> {
  const id = required(given, "spiffeID", "spiffeID must be specified");
  readId(id);
  const pair = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { format: "der", type: "spki" },
    privateKeyEncoding: { format: "der", type: "pkcs8" },
  });
  const key = createPrivateKey({ key: pair.privateKey, format: "der", type: "pkcs8" });
  const template = {
    spki: pair.publicKey,
    algorithm: "ecdsa-sha256",
    uris: [id],
    dnsNames: given.texts("dns"),
  } as const;
  const csr = buildCsr(template, (info) => sign("sha256", info, key));
  const ttl = readDuration(given, "ttl");
  const { svid } = await ask(given, SVID, (client) => client.mintX509SVID({ csr, ttl }));
  const { x509Authorities } = await ask(given, Bundle, (client) => client.getBundle({}));
  const chain = svid?.certChain ?? [];
  const roots = x509Authorities.map(({ asn1 }) => asn1);
  if (isJson(given)) {
    const base64 = (ders: readonly Uint8Array[]) => ders.map((der) => Buffer.from(der).toString("base64"));
    const document = {
      x509_svid: base64(chain),
      private_key: pair.privateKey.toString("base64"),
      root_cas: base64(roots),
    };
    print(JSON.stringify([document]));
    return;
  }
  const keyPem = formatPem("PRIVATE KEY", pair.privateKey);
  const dir = given.text("write");
  if (dir === "") {
    print(`X509-SVID:\n${certificatesToPem(chain)}`);
    print(`Private key:\n${keyPem}`);
    print(`Root CAs:\n${certificatesToPem(roots)}`);
    return;
  }
  writeSvidFiles(dir, { "svid.pem": certificatesToPem(chain), "bundle.pem": certificatesToPem(roots) });
  writePrivate(join(dir, "key.pem"), keyPem);
  print(`X509-SVID written to ${join(dir, "svid.pem")}`);
  print(`Private key written to ${join(dir, "key.pem")}`);
  print(`Root CAs written to ${join(dir, "bundle.pem")}`);
}

function writePrivate(path: string, contents: string): void {
  rmSync(path, { force: true });
  writeFileSync(path, contents, { mode: 0o600, flag: "wx" });
}

async function mintJwt(given: Given): Promise<void> {
  const id = readId(required(given, "spiffeID", "spiffeID must be specified"));
  const audience = [...given.texts("audience")];
  if (audience.length === 0) {
    throw new UsageError("at least one audience must be specified");
  }
  const ttl = readDuration(given, "ttl");
  const response = await ask(given, SVID, (client) => client.mintJWTSVID({ id, audience, ttl }));
  const path = given.text("write");
  answer(given, MintJWTSVIDResponseSchema, response, ({ svid }) => {
    if (path === "") {
      print(svid?.token ?? "");
      return;
    }
    writePrivate(path, svid?.token ?? "");
    print(`JWT-SVID written to ${path}`);
  });
}

export const MINT_COMMANDS: Commands = {
  "x509 mint": serverCommand(
    "Mints an X509-SVID",
    {
      spiffeID: text("SPIFFE ID of the X509-SVID"),
      ttl: text("TTL of the X509-SVID"),
      dns: texts("DNS name that will be included in SVID. Can be used more than once"),
      write: text("Directory to write output to instead of stdout"),
    },
    mintX509,
  ),
  "jwt mint": serverCommand(
    "Mints a JWT-SVID",
    {
      spiffeID: text("SPIFFE ID of the JWT-SVID"),
      ttl: text("TTL of the JWT-SVID"),
      audience: texts("Audience claim that will be included in the SVID. Can be used more than once."),
      write: text("File to write token to instead of stdout"),
    },
    mintJwt,
  ),
};
