/** The tokens of generated requests: minted with a key of the run, and put where the request carries them. */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { exportJwk } from "../../src/core/jose/jwk.ts";
import { signJws } from "../../src/core/jose/jws.ts";
import type { Line, Mint } from "./generate-requests.ts";

export class Minter {
  readonly #good = generateKeyPairSync("ec", { namedCurve: "P-256" });
  readonly #other = generateKeyPairSync("ec", { namedCurve: "P-256" });
  /** The key set that tokens with the good key verify against. */
  readonly jwks = JSON.stringify({ keys: [exportJwk(this.#good.publicKey, { kid: "k" })] });

  token(claims: object, key: Mint["key"] = "good"): string {
    const signer: KeyObject = (key === "good" ? this.#good : this.#other).privateKey;
    return signJws({ alg: "ES256", kid: "k" }, JSON.stringify(claims), signer);
  }

  /** A token with this very payload. */
  text(payload: string): string {
    return signJws({ alg: "ES256", kid: "k" }, payload, this.#good.privateKey);
  }
}

/** The line with its token where it belongs, as `policy decide` takes it. */
export function withMintedToken(line: Line, minter: Minter): Line {
  const { mint, ...rest } = line;
  if (mint === undefined || rest.request === undefined) {
    return line;
  }
  const token = minter.token(mint.claims, mint.key);
  const request = { ...(rest.request as { path: string; headers: Record<string, string[]> }) };
  const add = (name: string, value: string): void => {
    request.headers = { ...request.headers, [name]: [...(request.headers[name] ?? []), value] };
  };
  switch (mint.place) {
    case "authorization":
      add("authorization", `Bearer ${token}`);
      break;
    case "x-token":
      add("x-token", token);
      break;
    case "x-token T":
      add("x-token", `T ${token}`);
      break;
    case "cookie":
      add("cookie", `a=b; tok=${token}`);
      break;
    default:
      request.path += `${request.path.includes("?") ? "&" : "?"}${mint.place}=${token}`;
  }
  return { ...rest, request } as Line;
}
