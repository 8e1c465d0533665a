/** How claims that count as validated reach Envoy: as a token in a header of their own that is trusted. */
import type { Line } from "../../reference/generate-requests.ts";
import type { Minter } from "../../reference/mint.ts";

/** In this header claims that count as validated reach Envoy. */
export const AUTH_HEADER = "x-validated";

/** Trusts whatever token stands in that header: what `auth` says is validated already. */
export function authFilter(jwks: string): object {
  return {
    name: "envoy.filters.http.jwt_authn",
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
      providers: {
        any: {
          from_headers: [{ name: AUTH_HEADER }],
          payload_in_metadata: "payload",
          normalize_payload_in_metadata: { space_delimited_claims: ["permission", "scope"] },
          local_jwks: { inline_string: jwks },
        },
      },
      rules: [
        {
          match: { prefix: "/" },
          requires: { requires_any: { requirements: [{ provider_name: "any" }, { allow_missing: {} }] } },
        },
      ],
    },
  };
}

/** The line as it goes over the wire: validated claims as a token in their own header. */
export function withAuthHeader(line: Line, minter: Minter): Line {
  const request = line.request as { auth?: Record<string, unknown>; headers: Record<string, string[]> } | undefined;
  if (request?.auth === undefined) {
    return line;
  }
  const { auth, ...rest } = request;
  const { issuer, subject, audiences, presenter, claims } = auth;
  const all = { ...(claims as object), iss: issuer, sub: subject, aud: audiences, azp: presenter };
  const given = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  const headers = { ...rest.headers, [AUTH_HEADER]: [minter.token(given)] };
  return { ...line, request: { ...rest, headers } } as Line;
}
