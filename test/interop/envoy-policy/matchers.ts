/** Values of a policy as Envoy's matchers: what Istio's compiler makes of each field, told once more. */

const quote = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
const regex = (expression: string): object => ({ safe_regex: { regex: expression } });
const ANYTHING = regex(".+");

/** The four string forms. */
export function stringMatcher(value: string, before = "", ignoreCase = false): object {
  const folded = ignoreCase ? { ignore_case: true } : {};
  if (value === "*") {
    return ANYTHING;
  }
  if (value.startsWith("*")) {
    return before === "" ? { suffix: value.slice(1), ...folded } : regex(`${before}.*${quote(value.slice(1))}`);
  }
  return value.endsWith("*")
    ? { prefix: before + value.slice(0, -1), ...folded }
    : { exact: before + value, ...folded };
}

/** In a header a star alone is presence. */
export function headerMatcher(name: string, value: string, ignoreCase = false): object {
  return value === "*" ? { name, present_match: true } : { name, string_match: stringMatcher(value, "", ignoreCase) };
}

export function cidr(value: string): object {
  const [address = "", length] = value.split("/");
  const most = address.includes(":") ? 128 : 32;
  return { address_prefix: address.replace(/%.*/, ""), prefix_len: length === undefined ? most : Number(length) };
}

const authenticated = (matcher: object): object => ({ authenticated: { principal_name: matcher } });

export const principal = (value: string): object => authenticated(stringMatcher(value, "spiffe://"));

export const namespace = (value: string): object =>
  authenticated(regex(`.*/ns/${value.split("*").map(quote).join(".*")}/.*`));

export function serviceAccount(value: string, policyNamespace: string): object {
  const slash = value.indexOf("/");
  const [space, account] = slash === -1 ? [policyNamespace, value] : [value.slice(0, slash), value.slice(slash + 1)];
  return authenticated(regex(`spiffe://.+/ns/${quote(space)}/(.+/|)sa/${quote(account)}(/.+)?`));
}

export function trustDomain(value: string): object {
  if (value === "*") {
    return authenticated({ prefix: "spiffe://" });
  }
  const [head = "", ...tail] = value.split("*");
  return authenticated(
    tail.length === 0
      ? { prefix: `spiffe://${value}/` }
      : regex(`spiffe://${quote(head)}[^/]*${quote(tail.join("*"))}/.*`),
  );
}

function claim(path: readonly string[], value: object): object {
  const segments = ["payload", ...path].map((key) => ({ key }));
  return { metadata: { filter: "envoy.filters.http.jwt_authn", path: segments, value } };
}

/** A text, or any text of a list. */
export function claimValues(path: readonly string[], values: readonly string[]): object {
  const any = (matchers: readonly object[]): object =>
    matchers.length === 1 ? (matchers[0] as object) : { or_match: { value_matchers: matchers } };
  const texts = values.map((value) => ({ string_match: stringMatcher(value) }));
  const items = texts.map((text) => ({ list_match: { one_of: text } }));
  return claim(path, any([...texts, ...items]));
}

/** Issuer and subject are parted at the last slash. */
export function requestPrincipal(value: string): object {
  const slash = value.lastIndexOf("/");
  const [issuer, subject] = slash === -1 ? [value, ""] : [value.slice(0, slash), value.slice(slash + 1)];
  const exact = (text: string): object => ({ exact: text });
  const forms = (): readonly [object, object] => {
    if (value === "*") {
      return [ANYTHING, ANYTHING];
    }
    if (value.startsWith("*")) {
      return slash === -1
        ? [ANYTHING, { suffix: value.slice(1) }]
        : [issuer === "*" ? ANYTHING : { suffix: issuer.slice(1) }, exact(subject)];
    }
    if (value.endsWith("*")) {
      return slash === -1
        ? [{ prefix: value.slice(0, -1) }, ANYTHING]
        : [exact(issuer), subject === "*" ? ANYTHING : { prefix: subject.slice(0, -1) }];
    }
    return [exact(issuer), exact(subject)];
  };
  const [iss, sub] = forms();
  return { and_ids: { ids: [claim(["iss"], { string_match: iss }), claim(["sub"], { string_match: sub })] } };
}

export function path(value: string): object {
  if (!/\{\*\*?\}/.test(value)) {
    return { url_path: { path: stringMatcher(value) } };
  }
  const template = value.replaceAll("{**}", "**").replaceAll("{*}", "*");
  const type = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
  return { uri_template: { name: "t", typed_config: { "@type": type, path_template: template } } };
}
