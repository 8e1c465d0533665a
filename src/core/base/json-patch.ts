/** SPEC: RFC 6902, the operations that we write ourselves; pointers of RFC 6901. */
export type PatchOperation =
  | { readonly op: "add" | "replace"; readonly path: string; readonly value: unknown }
  | { readonly op: "remove"; readonly path: string };

/** Applies a patch to a copy; null where a path does not exist. */
export function applyPatch(document: unknown, patch: readonly PatchOperation[]): unknown {
  let result: unknown = structuredClone(document);
  for (const operation of patch) {
    const steps = parsePointer(operation.path);
    const last = steps.pop();
    if (last === undefined) {
      if (operation.op === "remove") {
        return null;
      }
      result = structuredClone(operation.value);
      continue;
    }
    const parent = steps.reduce<unknown>((node, step) => child(node, step), result);
    if (!applyAt(parent, last, operation)) {
      return null;
    }
  }
  return result;
}

/** Writes a path of keys and indices as a pointer. */
export function formatPointer(path: readonly (string | number)[]): string {
  return path.map((step) => `/${String(step).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}

function parsePointer(pointer: string): string[] {
  return pointer
    .split("/")
    .slice(1)
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function child(node: unknown, step: string): unknown {
  return typeof node === "object" && node !== null && Object.hasOwn(node, step)
    ? (node as Record<string, unknown>)[step]
    : undefined;
}

function applyAt(parent: unknown, step: string, operation: PatchOperation): boolean {
  if (typeof parent !== "object" || parent === null) {
    return false;
  }
  if (Array.isArray(parent)) {
    const index = step === "-" ? parent.length : /^(0|[1-9]\d*)$/.test(step) ? Number(step) : Number.NaN;
    const limit = operation.op === "add" ? parent.length : parent.length - 1;
    if (Number.isNaN(index) || index > limit) {
      return false;
    }
    if (operation.op === "remove") {
      parent.splice(index, 1);
    } else {
      parent.splice(index, operation.op === "add" ? 0 : 1, structuredClone(operation.value));
    }
    return true;
  }
  const record = parent as Record<string, unknown>;
  if (operation.op !== "add" && !Object.hasOwn(record, step)) {
    return false;
  }
  if (operation.op === "remove") {
    delete record[step];
  } else {
    Object.defineProperty(record, step, {
      value: structuredClone(operation.value),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  return true;
}
