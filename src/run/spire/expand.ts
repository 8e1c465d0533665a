/** `$NAME` and `${NAME}` replaced by the environment's; what is not set becomes nothing. SPEC: SPIRE, `-expandEnv`; Go's os.ExpandEnv. */
export function expandEnvironment(text: string, environment: Readonly<Record<string, string | undefined>>): string {
  return text.replace(/\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))/g, (_all, braced?: string, plain?: string) => {
    return environment[braced ?? plain ?? ""] ?? "";
  });
}
