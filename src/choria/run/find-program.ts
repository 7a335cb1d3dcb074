/*
 * Where the program is that the user means by `choria`. It must never take one from the working directory because a PATH has an empty
 * entry.
 */
import { accessSync, constants, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";

/** The first executable file of the name on the PATH, but for those in `except`; null when there is none. */
export function findProgram(name: string, path: string | undefined, except: readonly string[] = []): string | null {
  for (const directory of (path ?? "").split(":")) {
    if (!isAbsolute(directory) || except.includes(directory)) continue;
    const file = join(directory, name);
    try {
      if (!statSync(file).isFile()) continue;
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // The next one.
    }
  }
  return null;
}
