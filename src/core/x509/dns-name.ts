/** Why `name` cannot stand in a certificate as a DNS name; null where it can. A first label `*` is allowed. SPEC: RFC 1123 §2.1. */
export function dnsNameFault(name: string): string | null {
  if (name === "" || name.length > 253) {
    return name === "" ? "is empty" : "is longer than 253 characters";
  }
  const labels = name.split(".");
  const wildcard = labels[0] === "*" && labels.length > 1;
  const bad = (wildcard ? labels.slice(1) : labels).find(
    (label) => !/^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/.test(label),
  );
  return bad === undefined ? null : `has the label \`${bad.slice(0, 64)}\`, which is not a DNS label`;
}
