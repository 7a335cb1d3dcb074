/*
 * Lets node run the TypeScript of the tests as it stands: `.js` in an import finds the `.ts` beside it, and esbuild takes the
 * types away. It must touch nothing but files below test/.
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { transform } from "esbuild";

const TESTS = new URL("../", import.meta.url).href;

/** @type {import("node:module").ResolveHook} */
export async function resolve(specifier, context, next) {
  if (specifier.startsWith(".") && specifier.endsWith(".js") && context.parentURL?.startsWith(TESTS)) {
    const typed = new URL(`${specifier.slice(0, -3)}.ts`, context.parentURL);
    if (typed.href.startsWith(TESTS) && existsSync(typed)) return next(typed.href, context);
  }
  return next(specifier, context);
}

/** @type {import("node:module").LoadHook} */
export async function load(url, context, next) {
  if (!url.startsWith(TESTS) || !url.endsWith(".ts")) return next(url, context);
  const sourcefile = fileURLToPath(url);
  const { code } = await transform(await readFile(sourcefile), { loader: "ts", target: "node20", sourcefile, sourcemap: "inline" });
  return { format: "module", source: code, shortCircuit: true };
}
