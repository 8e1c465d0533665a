/** The commands that README.md shows, for the tests that run them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "..");

export interface Block {
  /** What `<!-- run: NAME -->` above it says: when the test runs it. Null: shown, not run. */
  readonly name: string | null;
  readonly text: string;
  readonly line: number;
}

/** Every ```sh block of a document, with the mark above it. */
export function shellBlocks(markdown: string): Block[] {
  const blocks: Block[] = [];
  for (const match of markdown.matchAll(/(?:^<!-- run: (\S+) -->\n)?^```sh\n([\s\S]*?)^```$/gm)) {
    const line = markdown.slice(0, match.index).split("\n").length;
    blocks.push({ name: match[1] ?? null, text: match[2] as string, line });
  }
  return blocks;
}

export function readmeBlocks(): Block[] {
  return shellBlocks(readFileSync(join(ROOT, "README.md"), "utf8"));
}

/** The one block with that name. */
export function readmeCommand(name: string): string {
  const found = readmeBlocks().filter((block) => block.name === name);
  if (found.length !== 1) {
    throw new Error(`README.md has ${found.length} blocks \`run: ${name}\`, not one`);
  }
  return (found[0] as Block).text.trim();
}
