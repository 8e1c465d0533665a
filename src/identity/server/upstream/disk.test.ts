import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { FakeClock } from "../../../core/base/clock.ts";
import { parseSpiffeId, parseTrustDomain } from "../../../core/spiffe/id.ts";
import { verifyX509Svid } from "../../../core/spiffe/x509-svid.ts";
import { parseCertificate } from "../../../core/x509/certificate.ts";
import { HOUR, NOW, type TestCa, testCa } from "../../../core/x509/fixture.ts";
import { silentLog } from "../../../io/log.ts";
import { memoryStateFile } from "../../../io/state-file.ts";
import { pem, pemChain } from "../../../io/tls.ts";
import { Authority } from "../../authority/authority.ts";
import { RecordingJournal, testSigner } from "../../authority/fixture.ts";
import { localAuthorityService } from "../local-authority-service.ts";
import { openUpstream } from "./open.ts";

const trustDomain = parseTrustDomain("example.com");
const id = parseSpiffeId("spiffe://example.com/ns/a/sa/b");
const spki = (): Uint8Array =>
  generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "der", type: "spki" });
const keyPem = ({ key }: TestCa): string => pem("PRIVATE KEY", key.export({ format: "der", type: "pkcs8" }));
const keyId = ({ der }: TestCa): string => parseCertificate(der).subjectKeyId ?? "";

/** An authority below files that `write` makes; opened anew it goes on with what it kept. */
async function below(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), "everyhop-upstream-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const at = (name: string) => join(dir, name);
  const files = { certFile: at("ca.pem"), keyFile: at("ca.key"), bundleFile: at("roots.pem") };
  const clock = new FakeClock(NOW);
  const signer = await testSigner(t, { clock });
  const [file, kept, journal] = [memoryStateFile(), memoryStateFile(), new RecordingJournal()];
  const random = (count: number) => crypto.getRandomValues(new Uint8Array(count));
  const errors: Error[] = [];
  return {
    clock,
    errors,
    write(chain: readonly TestCa[], roots: readonly TestCa[]) {
      writeFileSync(files.certFile, pemChain(chain.map(({ der }) => der)));
      writeFileSync(files.keyFile, keyPem(chain[0] as TestCa));
      writeFileSync(files.bundleFile, pemChain(roots.map(({ der }) => der)));
    },
    async open(config: { bundleFile?: string } = files) {
      const { certFile, keyFile } = files;
      const upstream = await openUpstream({
        config: { kind: "disk", certFile, keyFile, ...config },
        ...{ trustDomain, file, clock, random, log: silentLog },
      });
      const onError = (error: unknown) => errors.push(error as Error);
      const authority = await Authority.open({ trustDomain, signer, kept, journal, upstream, clock, onError });
      t.after(() => authority.close());
      return { upstream, authority };
    },
  };
}

const issue = (authority: Authority) =>
  authority.issueX509Svid({ publicKey: { spki: spki() }, spiffeId: id, entryId: "e" });

test("an intermediate from files: the chain goes with each SVID, the root is in the bundle, and not our CA", async (t) => {
  const { clock, write, open } = await below(t);
  const root = testCa("corporate root");
  const middle = testCa("corporate issuing CA", { notAfterMs: NOW + 2 * HOUR }, root);
  write([middle], [root]);
  const { authority, upstream } = await open();
  assert.deepEqual(authority.bundle.value.x509Authorities, [], "not ours");
  assert.deepEqual(upstream.bundle.value.x509Authorities.map(Buffer.from), [Buffer.from(root.der)]);
  const { chain } = await issue(authority);
  assert.equal(chain.length, 3);
  const verified = verifyX509Svid(chain, () => upstream.bundle.value, clock.now());
  assert.ok(verified.ok, JSON.stringify(verified));
  const active = authority.x509.active();
  assert.equal(active.notAfterMs, NOW + 2 * HOUR, "a CA does not outlive what is above it");
  assert.equal(active.upstreamId, keyId(root));
});

test("a root from files needs no bundle file, and is left out of the chain", async (t) => {
  const { clock, write, open } = await below(t);
  const root = testCa("corporate root");
  write([root], []);
  const { authority, upstream } = await open({});
  const { chain } = await issue(authority);
  assert.equal(chain.length, 2);
  assert.ok(verifyX509Svid(chain, () => upstream.bundle.value, clock.now()).ok);
});

test("files that cannot be used are refused with the reason, and nothing is signed", async (t) => {
  const root = testCa("corporate root");
  const cases: readonly (readonly [string, TestCa, readonly TestCa[], RegExp])[] = [
    ["no room below", testCa("narrow", { pathLength: 0 }, root), [root], /path length leaves no room/],
    ["another root", testCa("stray", {}, root), [testCa("other root")], /no authority of the bundle/],
    ["expired", testCa("late", { notBeforeMs: NOW - 2 * HOUR, notAfterMs: NOW - HOUR }, root), [root], /expired/],
    ["limited above", testCa("under a narrow root", {}, testCa("narrow root", { pathLength: 0 })), [root], /bundle/],
  ];
  for (const [what, ca, roots, message] of cases) {
    const { write, open } = await below(t);
    write([ca], roots);
    await assert.rejects(open(), message, what);
  }
  const { open } = await below(t);
  await assert.rejects(open(), /cannot read/);
});

test("files that changed are used for the next CA; both roots are believed as long as both are in use", async (t) => {
  const { clock, write, open } = await below(t);
  const [first, second] = [testCa("first root"), testCa("second root")];
  write([first], [first]);
  const { authority, upstream } = await open();
  const { chain: before } = await issue(authority);
  write([second], [second]);
  await authority.x509.activate((await authority.x509.prepare()).id);
  assert.equal(authority.x509.active().upstreamId, keyId(second));
  const { chain: after } = await issue(authority);
  for (const chain of [before, after]) {
    assert.ok(verifyX509Svid(chain, () => upstream.bundle.value, clock.now()).ok);
  }
});

test("what is above is tainted and revoked by its key; a CA below it makes way for another at once", async (t) => {
  const { clock, write, open, errors } = await below(t);
  const [first, second] = [testCa("first root"), testCa("second root")];
  write([first], [first]);
  const { authority, upstream } = await open();
  const old = authority.x509.active();
  await upstream.taint(keyId(first));
  await authority.x509.settled();
  assert.match(
    errors[0]?.message ?? "",
    /what is above it is tainted/,
    "no other CA can be had as long as the files are these",
  );
  assert.equal(authority.x509.active(), old);
  write([second], [second]);
  clock.advance(5_000);
  await authority.x509.settled();
  assert.equal(authority.x509.active().upstreamId, keyId(second));
  await upstream.revoke(keyId(first));
  const { x509Authorities, taintedX509KeyIds } = upstream.bundle.value;
  assert.deepEqual([x509Authorities.length, taintedX509KeyIds], [1, []]);
});

test("what was known survives a restart, also while the files are gone", async (t) => {
  const { clock, write, open } = await below(t);
  const root = testCa("corporate root");
  write([root], [root]);
  const first = await open();
  await first.authority.close();
  write([testCa("unrelated")], []);
  const { authority, upstream } = await open();
  const { chain } = await issue(authority);
  assert.ok(verifyX509Svid(chain, () => upstream.bundle.value, clock.now()).ok);
  assert.equal(upstream.bundle.value.sequence, first.upstream.bundle.value.sequence);
});

test("LocalAuthority below an upstream authority: ours are not tainted or revoked here, the one above is, in SPIRE's words", async (t) => {
  const { write, open } = await below(t);
  const [first, second] = [testCa("first root"), testCa("second root")];
  write([first], [first]);
  const { authority, upstream } = await open();
  const service = localAuthorityService(authority, { withdrawKey: async () => false });
  const context = {} as never;
  const taint = async (subjectKeyId: string) =>
    service.taintX509UpstreamAuthority?.({ subjectKeyId } as never, context);
  const revoke = async (subjectKeyId: string) =>
    service.revokeX509UpstreamAuthority?.({ subjectKeyId } as never, context);
  const ours = async (authorityId: string) => service.taintX509Authority?.({ authorityId } as never, context);
  const old = authority.x509.active();
  await assert.rejects(ours(old.id), /local authority can't be tainted if there is an upstream authority/);
  await assert.rejects(taint(""), /provided subject key id is not valid: no subject key ID provided/);
  await assert.rejects(taint(keyId(first)), /unable to use upstream authority signing current authority/);
  write([second], [second]);
  const { id: next } = await authority.x509.prepare();
  await assert.rejects(taint(keyId(second)), /only upstream authorities signing an old authority can be used/);
  await authority.x509.activate(next);
  await assert.rejects(revoke("00"), /invalid subject key ID: upstream authority didn't sign the old local authority/);
  assert.deepEqual(await taint(keyId(first).toUpperCase()), { upstreamAuthoritySubjectKeyId: keyId(first) });
  assert.deepEqual(upstream.bundle.value.taintedX509KeyIds, [keyId(first)]);
  await revoke(keyId(first));
  assert.deepEqual(upstream.bundle.value.x509Authorities.map(Buffer.from), [Buffer.from(second.der)]);
  const state = await service.getX509AuthorityState?.({} as never, context);
  assert.equal(state?.active?.upstreamAuthoritySubjectKeyId, keyId(second));
});
