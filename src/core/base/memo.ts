/**
 * Remembers what a pure function of a text answered, for the last few texts: certificates of one authority share their names, and
 * those of one batch their times. HOT: per issuance and per handshake. Bounded: full, it begins anew. What throws is not remembered.
 */
export function memo<T>(limit: number, make: (text: string) => T): (text: string) => T {
  const known = new Map<string, T>();
  return (text) => {
    const found = known.get(text);
    if (found !== undefined) {
      return found;
    }
    const made = make(text);
    if (known.size >= limit) {
      known.clear();
    }
    known.set(text, made);
    return made;
  };
}
