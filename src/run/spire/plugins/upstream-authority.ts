/** UpstreamAuthority: who signs our CA. One that we lack is an error: a self-signed CA instead would be another trust domain. */
import type { PluginType } from "../plugins.ts";
import { block, differs, hostPort, type Rule, text, to, valueAt, whole } from "../translation.ts";

const disk: Rule = (value, at) => {
  at.set(["upstreamAuthority", "kind"], "disk");
  block({
    cert_file_path: to(["upstreamAuthority", "certFile"], text),
    key_file_path: to(["upstreamAuthority", "keyFile"], text),
    bundle_file_path: to(["upstreamAuthority", "bundleFile"], text),
  })(value, at);
};

const spire: Rule = (value, at) => {
  at.set(["upstreamAuthority", "kind"], "spire");
  block({
    server_address: () => {},
    server_port: () => {},
    workload_api_socket: to(["upstreamAuthority", "workloadApiSocket"], text),
    experimental: differs("named pipes are Windows's"),
  })(value, at);
  const host = valueAt(value, at, "server_address");
  const port = valueAt(value, at, "server_port");
  if (host !== null && port !== null) {
    host[1].set(["upstreamAuthority", "server"], hostPort(text(...host) ?? "", whole(...port) ?? 0));
  }
};

export const UPSTREAM_AUTHORITY: PluginType = {
  plugins: { disk, spire },
  missing: {
    vault: "error",
    aws_pca: "error",
    awssecret: "error",
    gcp_cas: "error",
    "cert-manager": "error",
    ejbca: "error",
  },
  hint: 'use UpstreamAuthority "disk" with an intermediate CA from there, or "spire"',
};
