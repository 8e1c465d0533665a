/** `federation { bundle_endpoint { … } federates_with "other.org" { … } }`. */
import {
  block,
  blocks,
  differs,
  duration,
  hostPort,
  type Rule,
  type Source,
  text,
  to,
  valueAt,
  whole,
} from "./translation.ts";

const ENDPOINT = ["federation", "bundleEndpoint"];

/** `profile "https_web" { serving_cert_file { … } }`; SPIRE's older files have it as a value. */
const servingProfile: Rule = (value, at) => {
  if (typeof value === "string") {
    at.set([...ENDPOINT, "profile"], value);
    return;
  }
  const certificate = block({
    cert_file_path: to([...ENDPOINT, "certFile"], text),
    key_file_path: to([...ENDPOINT, "keyFile"], text),
    file_sync_interval: differs("the files are read again when they change"),
  });
  for (const [given, here] of blocks(value, at)) {
    for (const name of Object.keys(given)) {
      here.into(name).set([...ENDPOINT, "profile"], name);
    }
    block({ https_spiffe: block({}), https_web: block({ serving_cert_file: certificate, acme }) })(given, here);
  }
};

const acme: Rule = (_value, at) =>
  at.error("certificates are not fetched by ACME", "give `serving_cert_file { … }`, or use the profile https_spiffe");

export const bundleEndpoint: Rule = (value, at) => {
  block({
    address: () => {},
    port: () => {},
    refresh_hint: to([...ENDPOINT, "refreshHint"], duration),
    acme,
    profile: servingProfile,
  })(value, at);
  const host = valueAt(value, at, "address");
  const port = valueAt(value, at, "port");
  const name = host === null ? "0.0.0.0" : (text(...host) ?? "");
  (port ?? host ?? [null, at])[1].set(
    [...ENDPOINT, "listen"],
    hostPort(name, port === null ? 443 : (whole(...port) ?? 0)),
  );
  if (valueAt(value, at, "profile") === null) {
    at.set([...ENDPOINT, "profile"], "https_spiffe");
  }
};

export const federatesWith: Rule = (value, at) => {
  for (const [given, here] of blocks(value, at)) {
    for (const [trustDomain, body] of Object.entries(given)) {
      relationship(trustDomain, body, here.into(trustDomain));
    }
  }
};

function relationship(trustDomain: string, body: unknown, at: Source): void {
  const target = ["federation", "federatesWith", trustDomain];
  const endpoint = block({ endpoint_spiffe_id: to([...target, "endpointSpiffeId"], text) });
  const profile: Rule = (value, here) => {
    for (const [given, place] of blocks(value, here)) {
      for (const name of Object.keys(given)) {
        place.into(name).set([...target, "profile"], name);
      }
      block({ https_spiffe: endpoint, https_web: block({}) })(given, place);
    }
  };
  block({ bundle_endpoint_url: to([...target, "url"], text), bundle_endpoint_profile: profile })(body, at);
}
