import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { parseTrustDomain } from "../../core/spiffe/id.ts";
import { TrustDomain } from "../../gen/spire/api/server/trustdomain/v1/trustdomain_pb.js";
import {
  FederationRelationshipMaskSchema,
  FederationRelationshipSchema,
} from "../../gen/spire/api/types/federationrelationship_pb.js";
import { testServer } from "./fixture.ts";

const web = { case: "httpsWeb", value: {} } as const;
const spiffe = (endpointSpiffeId = "spiffe://other.org/spire/server") =>
  ({ case: "httpsSpiffe", value: { endpointSpiffeId } }) as const;
/** Nobody listens there: a poll fails at once. */
const URL = "https://127.0.0.1:1/";
const draft = (change: object = {}) =>
  create(FederationRelationshipSchema, {
    trustDomain: "other.org",
    bundleEndpointUrl: URL,
    bundleEndpointProfile: spiffe(),
    ...change,
  });
const outcome = (answer: { results: { status?: { code: number; message: string } | undefined }[] }) => {
  const { code, message } = answer.results[0]?.status ?? {};
  return [code, message];
};

test("relationships are made, shown, changed by mask, listed in pages and taken out", async (t) => {
  const client = (await testServer(t)).local(TrustDomain);
  const made = await client.batchCreateFederationRelationship({ federationRelationships: [draft()] });
  assert.deepEqual(outcome(made), [status.OK, "OK"]);
  assert.deepEqual(made.results[0]?.federationRelationship, draft());
  const again = await client.batchCreateFederationRelationship({ federationRelationships: [draft()] });
  assert.deepEqual(outcome(again), [status.ALREADY_EXISTS, "federation relationship already exists"]);
  assert.deepEqual(await client.getFederationRelationship({ trustDomain: "other.org" }), draft());

  const moved = draft({ bundleEndpointUrl: "https://moved.example/", bundleEndpointProfile: web });
  const inputMask = { bundleEndpointUrl: true };
  const urlOnly = await client.batchUpdateFederationRelationship({ federationRelationships: [moved], inputMask });
  assert.deepEqual(
    urlOnly.results[0]?.federationRelationship,
    draft({ bundleEndpointUrl: "https://moved.example/" }),
    "what the mask does not name stays",
  );
  const whole = await client.batchUpdateFederationRelationship({ federationRelationships: [moved] });
  assert.deepEqual(whole.results[0]?.federationRelationship, moved);
  const missing = await client.batchUpdateFederationRelationship({
    federationRelationships: [draft({ trustDomain: "third.org" })],
  });
  assert.deepEqual(outcome(missing), [status.NOT_FOUND, "federation relationship not found"]);

  await client.batchCreateFederationRelationship({ federationRelationships: [draft({ trustDomain: "third.org" })] });
  const first = await client.listFederationRelationships({ pageSize: 1 });
  const rest = await client.listFederationRelationships({ pageSize: 1, pageToken: first.nextPageToken });
  assert.deepEqual(
    [...first.federationRelationships, ...rest.federationRelationships].map(({ trustDomain }) => trustDomain),
    ["other.org", "third.org"],
  );
  assert.equal(rest.nextPageToken, "");

  const trustDomains = ["other.org", "other.org", "", "Upper.org"];
  const deleted = await client.batchDeleteFederationRelationship({ trustDomains });
  assert.deepEqual(
    deleted.results.map(({ trustDomain, status: of }) => [trustDomain, of?.code]),
    [
      ["other.org", status.OK],
      ["other.org", status.NOT_FOUND],
      ["", status.INVALID_ARGUMENT],
      ["Upper.org", status.INVALID_ARGUMENT],
    ],
  );
  const gone = client.getFederationRelationship({ trustDomain: "other.org" });
  await assert.rejects(gone, { code: status.NOT_FOUND, details: "federation relationship does not exist" });
});

test("each bit of the output mask shows its own field alone", async (t) => {
  const server = await testServer(t);
  const client = server.local(TrustDomain);
  const asn1 = server.identity.authorities.value[0] ?? new Uint8Array();
  const trustDomainBundle = { trustDomain: "other.org", x509Authorities: [{ asn1 }], sequenceNumber: 7n };
  await client.batchCreateFederationRelationship({ federationRelationships: [draft({ trustDomainBundle })] });
  const whole = await client.getFederationRelationship({ trustDomain: "other.org" });
  assert.equal(whole.trustDomainBundle?.sequenceNumber, 7n);
  const nothing = create(FederationRelationshipSchema, { trustDomain: "other.org" });
  for (const { localName } of FederationRelationshipMaskSchema.fields) {
    const outputMask = create(FederationRelationshipMaskSchema, { [localName]: true });
    const shown = await client.getFederationRelationship({ trustDomain: "other.org", outputMask });
    assert.deepEqual(shown, { ...nothing, [localName]: whole[localName as keyof typeof whole] }, localName);
  }
});

test("what is no relationship is refused in SPIRE's words, item by item", async (t) => {
  const server = await testServer(t);
  const client = server.local(TrustDomain);
  const asn1 = server.identity.authorities.value[0] ?? new Uint8Array();
  const cases: readonly (readonly [object, RegExp])[] = [
    [{ trustDomain: "" }, /^failed to convert federation relationship: failed to parse trust domain/],
    [{ trustDomain: "example.com" }, /^unable to create federation relationship for server trust domain$/],
    [{ bundleEndpointUrl: "" }, /failed to parse bundle endpoint URL/],
    [{ bundleEndpointUrl: "http://other.org/" }, /bundle endpoint URL must use the https scheme/],
    [{ bundleEndpointUrl: "https://u:p@other.org/" }, /bundle endpoint URL must not contain user info/],
    [{ bundleEndpointProfile: { case: undefined } }, /unsupported bundle endpoint profile type/],
    [{ bundleEndpointProfile: spiffe("other.org") }, /failed to parse endpoint SPIFFE ID/],
    [
      { trustDomainBundle: { trustDomain: "third.org", x509Authorities: [{ asn1 }] } },
      /trust domain bundle \("third.org"\) must match the trust domain of the federation relationship \("other.org"\)/,
    ],
    [{ trustDomainBundle: { trustDomain: "other.org", x509Authorities: [{ asn1: Buffer.from("x") }] } }, /malformed/],
  ];
  for (const [change, message] of cases) {
    const answer = await client.batchCreateFederationRelationship({
      federationRelationships: [draft(change), draft({ trustDomain: "good.org" })],
    });
    const [code, text] = outcome(answer);
    assert.equal(code, status.INVALID_ARGUMENT, JSON.stringify(change));
    assert.match(String(text), message);
    assert.equal(answer.results[1]?.status?.code, status.OK);
    await client.batchDeleteFederationRelationship({ trustDomains: ["good.org"] });
  }
  assert.equal((await client.listFederationRelationships({})).federationRelationships.length, 0);
});

test("refreshing asks the endpoint, and says what came of it; without a relationship there is nothing to ask", async (t) => {
  const server = await testServer(t);
  const client = server.local(TrustDomain);
  const unknown = client.refreshBundle({ trustDomain: "other.org" });
  await assert.rejects(unknown, {
    code: status.NOT_FOUND,
    details: 'no relationship with trust domain "other.org"',
  });
  await client.batchCreateFederationRelationship({ federationRelationships: [draft({ bundleEndpointProfile: web })] });
  await assert.rejects(client.refreshBundle({ trustDomain: "other.org" }), /ECONNREFUSED/);
  assert.equal(server.identity.bundles.federatedWith(parseTrustDomain("other.org")), null);
});
