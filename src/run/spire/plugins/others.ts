/** Plugin types of which there is little to translate. */
import type { PluginType } from "../plugins.ts";

export const BUNDLE_PUBLISHER: PluginType = {
  plugins: {},
  missing: {
    aws_s3: "warning",
    gcp_cloudstorage: "warning",
    azure_blob: "warning",
    k8s_configmap: "warning",
    aws_rolesanywhere_trustanchor: "warning",
  },
  hint: "the bundle is always in `bundle.pem` of `data_dir`, and at the bundle endpoint: publish it from there",
};

export const NOTIFIER: PluginType = {
  plugins: {},
  missing: { k8sbundle: "warning", gcs_bundle: "warning" },
  hint: "the bundle is always in `bundle.pem` of `data_dir`: publish it from there",
};

export const CREDENTIAL_COMPOSER: PluginType = {
  plugins: {},
  missing: { uniqueid: "warning" },
  hint: "certificates say what the SPIFFE specifications ask for, and no more",
};

export const SVID_STORE: PluginType = {
  plugins: {},
  missing: { aws_secretsmanager: "warning", gcp_secretmanager: "warning" },
  hint: "`everyhop svid watch` follows an SVID, for a program that stores it",
};
