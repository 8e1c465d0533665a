/**
 * The target of a request line and its authority, as Envoy's HTTP/1.1 codec takes them apart. OBSERVED on Envoy 1.40.0:
 * a target in absolute form is read by the rules of URLs, a Host header by those of authorities, which are wider.
 */

export interface RequestTarget {
  readonly path: string | null;
  readonly host: string | null;
  /** Where the target says one. */
  readonly scheme: string | null;
}

const ABSOLUTE = /^(https?):\/\/([^/?]*)(.*)$/is;

/** Nobody is named by what stands before `@`; it is dropped. */
const URL_AUTHORITY =
  /^(?:[A-Za-z0-9\-_.!~*'()%;:&=+$,]*@)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])(:0*(\d{1,5}))?$/;

const AUTHORITY = /^[A-Za-z0-9\-._~!$&'()*+,;=:@%[\]]*$/;

/** Absolute form: the authority of the target takes the place of Host. Null where the request is answered 400. */
export function splitTarget(path: string | null, host: string | null): RequestTarget | null {
  const [, scheme, authority, rest] = (path === null ? null : ABSOLUTE.exec(path)) ?? [];
  if (scheme === undefined || authority === undefined || rest === undefined) {
    return host === null || AUTHORITY.test(host) ? { path, host, scheme: null } : null;
  }
  const [, name, port = "", number = "0"] = URL_AUTHORITY.exec(authority) ?? [];
  if (name === undefined || Number(number) > 65_535) {
    return null;
  }
  return { host: name + port, path: rest === "" ? "/" : rest, scheme: scheme.toLowerCase() };
}
