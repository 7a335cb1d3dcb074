/*
 * `npm run bench`: how fast a signature is, beside stock p11-kit, in one run with real parts only. docs/performance.md says
 * how to read it. This file only makes the TypeScript of test/ loadable; test/bench/main.ts is the bench.
 */
import { register } from "node:module";

register("./typescript-hooks.mjs", import.meta.url);
const { main } = await import("./main.ts");
process.exitCode = await main(process.argv.slice(2));
