/**
 * Text that came from outside (a path, a host, an error of a peer) as it may be shown in a terminal: what could move the cursor,
 * change colours or turn the reading direction is shown as an escape.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (char) => {
    const code = char.codePointAt(0) ?? 0;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}
