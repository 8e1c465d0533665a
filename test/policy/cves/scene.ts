/** The surfaces that attacks of the table reach here, each asked with a real input. */
import assert from "node:assert/strict";
import { type Answer, Decider } from "../../../src/core/policy/decide.ts";
import { readDecisionRequest } from "../../../src/core/policy/decision-request.ts";
import { DEFAULT_MESH_CONFIG, type MeshConfig } from "../../../src/core/policy/mesh-config.ts";
import { parseResources } from "../../../src/core/policy/parse.ts";
import { parseTrustDomain } from "../../../src/core/spiffe/id.ts";
import { bundlesOf, verifyX509Svid } from "../../../src/core/spiffe/x509-svid.ts";
import { LEAF_EXTENSIONS, NOW, type RawOptions, rawCertificate, testCa } from "../../../src/core/x509/fixture.ts";
import { DONE, FAULT } from "../../../src/proxy/http/fields.ts";
import { RequestHead } from "../../../src/proxy/http/request-head.ts";
import { Minter } from "../../reference/mint.ts";

/** One line of the table: what is known, the attack as an input, what we answer, and the proof. */
export interface Row {
  /** `CVE-…`, a bulletin, or the name of a class of attacks. */
  readonly id: string;
  readonly attack: string;
  readonly answer: string;
  readonly check: () => void;
}

type Json = Record<string, unknown>;

export const minter = new Minter();

export const policy = (spec: Json, metadata: Json = {}): Json => ({
  apiVersion: "security.istio.io/v1",
  kind: "AuthorizationPolicy",
  metadata: { name: "p", namespace: "prod", ...metadata },
  spec,
});

export const paths = (...values: string[]): Json => ({ to: [{ operation: { paths: values } }] });
export const hosts = (...values: string[]): Json => ({ to: [{ operation: { hosts: values } }] });
export const header = (name: string, ...values: string[]): Json => ({
  when: [{ key: `request.headers[${name}]`, values }],
});
export const from = (source: Json): Json => ({ from: [{ source }] });
export const deny = (...rules: Json[]): Json => policy({ action: "DENY", rules });
export const allow = (...rules: Json[]): Json => policy({ rules });

export const jwtRule = (rule: Json = {}): Json => ({
  apiVersion: "security.istio.io/v1",
  kind: "RequestAuthentication",
  metadata: { name: "j", namespace: "prod" },
  spec: { jwtRules: [{ issuer: "i", jwks: minter.jwks, ...rule }] },
});

const files = (documents: readonly object[]) =>
  documents.map((document, index) => ({ file: `${index}.yaml`, text: JSON.stringify(document) }));

/** The errors of admission. */
export function faults(...documents: object[]): readonly string[] {
  return parseResources(files(documents))
    .issues.filter(({ severity }) => severity === "error")
    .map(({ message }) => message);
}

export function decide(documents: readonly object[], line: Json, mesh: Partial<MeshConfig> = {}): Answer {
  const { resources, issues } = parseResources(files(documents));
  assert.deepEqual(
    issues.filter(({ severity }) => severity === "error"),
    [],
  );
  const meshConfig = { ...DEFAULT_MESH_CONFIG, ...mesh };
  const decider = new Decider(resources, { trustDomain: "cluster.local", meshConfig }, { now: () => NOW });
  return decider.decide(readDecisionRequest({ destination: { namespace: "prod", port: 8080 }, ...line }));
}

export const http = (request: Json, source: Json = {}): Json => ({
  source,
  request: { method: "GET", path: "/", host: "shop", ...request },
});

/** All of them are denied, with this status. */
export function denied(
  documents: readonly object[],
  lines: readonly Json[],
  status = 403,
  mesh: Partial<MeshConfig> = {},
) {
  for (const line of lines) {
    assert.equal(decide(documents, line, mesh).status, status, JSON.stringify(line));
  }
}

export function allowed(documents: readonly object[], lines: readonly Json[], mesh: Partial<MeshConfig> = {}) {
  for (const line of lines) {
    assert.equal(decide(documents, line, mesh).decision, "allow", JSON.stringify(line));
  }
}

/** A request's head as bytes, read by the sidecar: the fault, or null where it is taken. */
export function headFault(...lines: string[]): string | null {
  const head = new RequestHead();
  head.reset();
  const progress = head.parse(Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), 0);
  return progress === FAULT ? head.fault : progress === DONE ? null : "incomplete";
}

export function refusesHeads(...heads: readonly (readonly string[])[]): void {
  for (const lines of heads) {
    assert.notEqual(headFault(...lines), null, JSON.stringify(lines));
  }
}

export const ID = "spiffe://example.com/ns/production/sa/api";
const root = testCa("root");
const bundles = bundlesOf(new Map([[parseTrustDomain("example.com"), [root.der]]]));

/** What a certificate with these names is worth: the reason it is refused, or `ok`. */
export function certificate(options: RawOptions): string {
  const leaf = rawCertificate(root, { uris: [ID], ...LEAF_EXTENSIONS, ...options });
  const result = verifyX509Svid([leaf], bundles, NOW);
  return result.ok ? "ok" : result.reason;
}
