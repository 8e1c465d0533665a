/** RequestAuthentication as Istio hands it to Envoy: {P1 or P2 … or all of (Pi or missing)}. */
import { createPublicKey, verify } from "node:crypto";
import type { JwtRule, RequestAuthentication } from "../../src/core/policy/resources.ts";
import type { Claims, Facts } from "./facts.ts";

type Outcome = "ok" | "missing" | "unknown-issuer" | "wrong-audience" | "bad";

const SKEW_S = 60;

/** Changes the facts as validating changes the request. The status of the refusal, or null. */
export function authenticateSlowly(
  resources: readonly RequestAuthentication[],
  rootNamespace: string,
  facts: Facts,
  nowMs: number,
): 401 | 403 | null {
  const own = resources.filter(({ namespace }) => namespace !== rootNamespace);
  const root = resources.filter(({ namespace }) => namespace === rootNamespace);
  const rules = [...own, ...root].flatMap(({ jwtRules }) => jwtRules);
  rules.sort((a, b) => (a.issuer < b.issuer ? -1 : a.issuer > b.issuer ? 1 : 0));
  if (rules.length === 0 || isPreflight(facts)) {
    return null;
  }
  const alternatives = rules.map((rule) => () => provider(rule, facts, nowMs));
  const orMissing = (rule: JwtRule): Outcome => {
    const outcome = provider(rule, facts, nowMs);
    return outcome === "missing" ? "ok" : outcome;
  };
  const conjunction = (): Outcome => {
    for (const rule of rules) {
      const outcome = orMissing(rule);
      if (outcome !== "ok") {
        return outcome;
      }
    }
    return "ok";
  };
  const [only] = rules;
  const result = rules.length === 1 ? orMissing(only as JwtRule) : any([...alternatives, conjunction]);
  return result === "ok" ? null : result === "wrong-audience" ? 403 : 401;
}

/** One success suffices; of failures the last counts that is more than a token missing or of another issuer. */
function any(alternatives: readonly (() => Outcome)[]): Outcome {
  const outcomes: Outcome[] = [];
  for (const attempt of alternatives) {
    const outcome = attempt();
    if (outcome === "ok") {
      return "ok";
    }
    outcomes.push(outcome);
  }
  const telling = outcomes.filter((outcome) => outcome !== "missing" && outcome !== "unknown-issuer");
  return telling.at(-1) ?? (outcomes.includes("unknown-issuer") ? "unknown-issuer" : "missing");
}

const isPreflight = (facts: Facts): boolean =>
  facts.method === "OPTIONS" &&
  facts.header("origin").some((value) => value !== "") &&
  facts.header("access-control-request-method").some((value) => value !== "");

/** Judges the tokens at one rule's places, the last one first; all must be good. */
function provider(rule: JwtRule, facts: Facts, nowMs: number): Outcome {
  for (const { header } of rule.outputClaimToHeaders) {
    facts.headers.delete(header.toLowerCase());
  }
  const found = findTokens(rule, facts);
  for (const { token, remove } of [...found].reverse()) {
    const claims = readToken(token);
    const outcome = claims === null ? "bad" : judge(token, claims, rule, nowMs);
    if (outcome !== "ok" || claims === null) {
      return outcome;
    }
    copyClaims(rule, claims, facts);
    if (!rule.forwardOriginalToken) {
      remove();
    }
    facts.claims = splitAtSpaces(claims, rule.spaceDelimitedClaims);
  }
  return found.length === 0 ? "missing" : "ok";
}

interface Found {
  readonly token: string;
  readonly remove: () => void;
}

function findTokens(rule: JwtRule, facts: Facts): Found[] {
  const isDefault = rule.fromHeaders.length + rule.fromParams.length + rule.fromCookies.length === 0;
  const headers = isDefault ? [{ name: "authorization", prefix: "Bearer " }] : rule.fromHeaders;
  const params = isDefault ? ["access_token"] : rule.fromParams;
  const inHeaders = headers.flatMap(({ name, prefix }) =>
    facts.header(name.toLowerCase()).flatMap((line): Found[] => {
      const at = line.indexOf(prefix);
      // Between a prefix and its token other characters are passed over.
      const token = prefix === "" ? line : line.slice(at + prefix.length).replace(/^[^A-Za-z0-9_.-]+/, "");
      const remove = () => facts.headers.delete(name.toLowerCase());
      return at === -1 ? [] : [{ token: token || line, remove }];
    }),
  );
  const [, query = ""] = /\?(.*)$/s.exec(facts.path ?? "") ?? [];
  const given = query.split("&").map((pair) => pair.split(/=(.*)/s, 2).map(unescaped) as [string, string]);
  const inParams = params.flatMap((name): Found[] => {
    const token = given.find(([key]) => key === name)?.[1];
    return token === undefined ? [] : [{ token, remove: () => removeParam(facts, given, name) }];
  });
  const cookies = facts
    .header("cookie")
    .flatMap((line) => line.split(";").map((pair) => pair.trim().split(/=(.*)/s, 2)));
  const inCookies = rule.fromCookies.flatMap((name): Found[] => {
    const token = cookies.find(([key]) => key === name)?.[1];
    return token === undefined ? [] : [{ token, remove: () => {} }];
  });
  return [...inHeaders, ...inParams, ...inCookies];
}

const unescaped = (text: string): string =>
  text.replace(/%([0-9a-f]{2})/gi, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));

function removeParam(facts: Facts, given: readonly [string, string][], name: string): void {
  const kept = given.filter(([key]) => key !== name && key !== "").sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const query = kept.map(([key, value]) => `${key}=${value ?? ""}`).join("&");
  facts.path = `${facts.path?.split("?", 1)[0]}${query === "" ? "" : `?${query}`}`;
}

function readToken(token: string): Claims | null {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
    return /^[\w-]+\.[\w-]+\.[\w-]+$/.test(token) && typeof claims === "object" ? (claims as Claims) : null;
  } catch {
    return null;
  }
}

/** Form, issuer, time, audience, and the signature last. */
function judge(token: string, claims: Claims, rule: JwtRule, nowMs: number): Outcome {
  const { iss = "", sub = "", aud = [], nbf = 0, exp = 0, iat = 0 } = claims;
  const audiences = typeof aud === "string" ? [aud] : (aud as unknown);
  const isForm = typeof iss === "string" && typeof sub === "string" && Array.isArray(audiences);
  if (!isForm || [nbf, exp, iat].some((time) => typeof time !== "number" || time < 0)) {
    return "bad";
  }
  if (rule.issuer !== "" && rule.issuer !== iss) {
    return "unknown-issuer";
  }
  const now = Math.floor(nowMs / 1_000);
  if (now + SKEW_S < (nbf as number) || (exp !== 0 && now > Math.floor(exp as number) + SKEW_S)) {
    return "bad";
  }
  const plain = (name: string): string => name.replace(/^https?:\/\//, "").replace(/\/$/, "");
  const wanted = rule.audiences.map(plain);
  if (wanted.length > 0 && !audiences.some((name) => wanted.includes(plain(String(name))))) {
    return "wrong-audience";
  }
  return isSigned(token, rule.jwks ?? "") ? "ok" : "bad";
}

function isSigned(token: string, jwks: string): boolean {
  const [head = "", body = "", signature = ""] = token.split(".");
  const { keys } = JSON.parse(jwks) as { keys: object[] };
  return keys.some((jwk) =>
    verify(
      "sha256",
      Buffer.from(`${head}.${body}`),
      { key: createPublicKey({ key: jwk as never, format: "jwk" }), dsaEncoding: "ieee-p1363" },
      Buffer.from(signature, "base64url"),
    ),
  );
}

function copyClaims(rule: JwtRule, claims: Claims, facts: Facts): void {
  for (const { header, claim } of rule.outputClaimToHeaders) {
    const value = claim
      .split(".")
      .reduce<unknown>((inside, name) => (inside as Claims | null | undefined)?.[name] ?? undefined, claims);
    const text =
      typeof value === "object"
        ? Buffer.from(JSON.stringify(value)).toString("base64")
        : typeof value === "number" && (value < 0 || !Number.isInteger(value))
          ? value.toFixed(6)
          : String(value ?? "");
    if (text !== "") {
      facts.headers.set(header.toLowerCase(), [Buffer.from(text, "utf8").toString("latin1")]);
    }
  }
}

/** `scope`, `permission` and what the rule names are lists in one text. */
export function splitAtSpaces(claims: Claims, named: readonly string[]): Claims {
  const entries = Object.entries(claims).map(([name, value]) => {
    const isSplit = ["scope", "permission", ...named].includes(name) && typeof value === "string";
    const words = isSplit ? value.split(" ").filter((word) => word !== "") : [];
    return [name, words.length > 0 ? words : value] as const;
  });
  return Object.fromEntries(entries);
}
