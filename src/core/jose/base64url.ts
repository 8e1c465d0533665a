/** Decodes base64url without padding, strictly: no other characters, no unused bits. Null where it is none. SPEC: RFC 7515 §2. */
export function decodeBase64Url(text: string): Buffer | null {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) {
    return null;
  }
  const bytes = Buffer.from(text, "base64url");
  return bytes.toString("base64url") === text ? bytes : null;
}

export function encodeBase64Url(bytes: Uint8Array | string): string {
  return typeof bytes === "string"
    ? Buffer.from(bytes, "utf8").toString("base64url")
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64url");
}
