/*
 * A pinentry that answers as a test tells it and keeps what it was sent.
 */
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

export interface FakePinentry {
  /** For TOKENFWD_PINENTRY. */
  readonly program: string;
  readonly transcript: string;
  /** How often it has been asked for a PIN. */
  asked(): Promise<number>;
}

/** `replies` by command, as printf takes them, one after another where there are several; what is not named is answered OK. It goes with the directory. */
export async function createFakePinentry(
  dir: string,
  name: string,
  replies: Readonly<Record<string, string | readonly string[]>>,
): Promise<FakePinentry> {
  const program = join(dir, name);
  const transcript = join(dir, `${name}.log`);
  const cases = Object.entries(replies).map(([command, reply]) => {
    const all = typeof reply === "string" ? [reply] : reply;
    const count = `$(grep -c '^${command}' ${transcript})`;
    // The last one is for all that come after it.
    const choices = all.map((one, index) => `${index === all.length - 1 ? "*" : index + 1}) printf '%b' '${one}' ;;`);
    return `    ${command}*) case "${count}" in ${choices.join(" ")} esac ;;`;
  });
  const script = ["#!/bin/sh", 'echo "OK Pleased to meet you"', "while IFS= read -r line; do", `  printf '%s\\n' "$line" >> ${transcript}`];
  await writeFile(
    program,
    [...script, '  case "$line" in', ...cases, "    BYE*) exit 0 ;;", "    *) echo OK ;;", "  esac", "done", ""].join("\n"),
  );
  await chmod(program, 0o700);
  await writeFile(transcript, "");
  return { program, transcript, asked: async () => (await readFile(transcript, "utf8")).match(/^GETPIN/gm)?.length ?? 0 };
}
