/** Reading JSON that another program wrote: nothing of its form is believed. */

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value at a path of own keys; undefined where there is none. */
export function at(value: unknown, ...path: readonly string[]): unknown {
  let current = value;
  for (const step of path) {
    current = isRecord(current) && Object.hasOwn(current, step) ? current[step] : undefined;
  }
  return current;
}

/** A mapping of texts to texts; nothing at all is an empty one, anything else null. */
export function textRecord(value: unknown): Readonly<Record<string, string>> | null {
  if (value === undefined || value === null) {
    return {};
  }
  return isRecord(value) && Object.values(value).every((one) => typeof one === "string")
    ? (value as Record<string, string>)
    : null;
}

/** The text at a path, or empty. */
export function textAt(value: unknown, ...path: readonly string[]): string {
  const found = at(value, ...path);
  return typeof found === "string" ? found : "";
}

/** The list at a path, or an empty one. */
export function listAt(value: unknown, ...path: readonly string[]): readonly unknown[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found : [];
}
