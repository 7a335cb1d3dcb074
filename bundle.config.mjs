/*
 * Makes dist/tokenfwd-bastion.cjs, the one file for a bastion: sign, keys and all they need, for Node >= 20, with no native code.
 * Run by `npm run build`; a test builds it again to look at what went in. What is in the file must never depend on the machine
 * that made it.
 */
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const ROOT = fileURLToPath(new URL(".", import.meta.url));
const OUT = "dist/tokenfwd-bastion.cjs";
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

// The first statement of the file, in syntax that every Node reads. The rest is lowered to what Node 12 can at least parse, or
// this line would never run there.
const CHECK = `#!/usr/bin/env node
if (Number(process.versions.node.split(".")[0]) < 20) {
  process.stderr.write("tokenfwd: needs Node.js 20 or newer, and this is " + process.versions.node + "\\nhint: install a newer Node.js, or put one first on PATH\\n");
  process.exit(1);
}`;

/** Our licence and those of the packages that went in, as comments. */
function licences(inputs) {
  const packages = new Set(
    Object.keys(inputs).flatMap((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path.split(sep).join("/"))?.[1] ?? []),
  );
  return ["tokenfwd", ...[...packages].sort()].map((name) => {
    const directory = name === "tokenfwd" ? ROOT : join(ROOT, "node_modules", name);
    const file = readdirSync(directory).find((entry) => /^licen[cs]e/i.test(entry));
    if (file === undefined) throw new Error(`${name} has no licence file`);
    return `/*! ${name}\n\n${readFileSync(join(directory, file), "utf8").trim().replaceAll("*/", "* /")}\n*/\n`;
  });
}

/** Builds it in memory: the file's text, and what esbuild says went in. */
export async function bundle() {
  const result = await build({
    absWorkingDir: ROOT,
    entryPoints: ["src/cli/bastion-main.ts"],
    outfile: OUT,
    write: false,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node12",
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "none",
    charset: "utf8",
    metafile: true,
    logLevel: "error",
    banner: { js: CHECK },
    define: { TOKENFWD_VERSION: JSON.stringify(version) },
    // import.meta is looked at only where the version was not defined.
    logOverride: { "empty-import-meta": "silent" },
  });
  const output = result.outputFiles[0];
  if (output === undefined || result.warnings.length > 0) throw new Error(`esbuild: ${JSON.stringify(result.warnings)}`);
  return { text: output.text + licences(result.metafile.inputs).join(""), metafile: result.metafile };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { text } = await bundle();
  // In one step: a build that others run from is never half a file.
  const path = join(ROOT, OUT);
  const temporary = `${path}.${process.pid}`;
  mkdirSync(join(ROOT, "dist"), { recursive: true });
  writeFileSync(temporary, text);
  chmodSync(temporary, 0o755);
  renameSync(temporary, path);
  process.stdout.write(`${relative(process.cwd(), path)}  ${(Buffer.byteLength(text) / 1024).toFixed(0)} KiB\n`);
}
