/* The one file for a bastion: what is in it, what is not, and that it needs nothing beside it but Node. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { transformSync } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bundle } from "../../bundle.config.mjs";
import { type InstalledBundle, installBundle } from "./bastion-bundle.js";

const ROOT = dirname(fileURLToPath(new URL("../../package.json", import.meta.url)));
const { version } = JSON.parse(readFileSync(`${ROOT}/package.json`, "utf8")) as { version: string };
let built: Awaited<ReturnType<typeof bundle>>;
let installed: InstalledBundle;

beforeAll(async () => {
  built = await bundle();
  installed = await installBundle();
});
afterAll(() => installed?.dispose());

test("it is made of our bastion side and three packages, and asks for nothing but Node's own modules", () => {
  const inputs = Object.keys(built.metafile.inputs);
  const packages = new Set(inputs.flatMap((path) => /node_modules\/([^/]+)/.exec(path)?.[1] ?? []));
  expect([...packages].sort()).toEqual(["@nats-io", "commander", "msgpackr"]);
  const ours = new Set(inputs.flatMap((path) => /^src\/(?:token\/)?[^/]+/.exec(path)?.[0] ?? []));
  const layers = ["src/base", "src/bastion", "src/choria", "src/cli", "src/cryptoki", "src/doctor", "src/token/host", "src/wire"];
  expect([...ours].sort()).toEqual(layers);
  expect(inputs.filter((path) => /^src\/(agent|forward|token\/driver)\/|^src\/base\/run\.ts$|\.node$/.test(path))).toEqual([]);
  const outside = Object.values(built.metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path));
  expect(outside.filter((path) => !isBuiltin(path))).toEqual([]);
  expect(outside).toContain("net");
  // And nothing that is loaded by a name the bundler did not see.
  expect(built.text.match(/pkcs11js|msgpackr-extract|["'](ssh2|execa|cpu-features)["']|\.node["']|process\.dlopen/g)).toBeNull();
});

test("it is the same on every machine, holds no path of this one, and carries the licences of what it is made of", async () => {
  expect((await bundle()).text).toBe(built.text);
  expect(built.text).not.toContain(ROOT);
  expect(built.text.match(/^\/\*! (tokenfwd|commander|msgpackr)\n\n[\s\S]*?Permission is hereby granted/gm)).toHaveLength(3);
});

test("Node 12 can read all of it, and says in one line that it is too old", () => {
  // Lowered once more to what Node 12 knows, nothing changes: there is no younger syntax in it.
  const shape = { format: "cjs", platform: "node", legalComments: "none" } as const;
  const young = "class A { #a = 1; b() { return this.#a ?? 2; } }";
  expect(transformSync(young, { ...shape, target: "node12" }).code).not.toBe(transformSync(young, { ...shape, target: "esnext" }).code);
  const lowered = transformSync(built.text, { ...shape, target: "node12" });
  expect(lowered.code).toBe(transformSync(built.text, { ...shape, target: "esnext" }).code);

  const old = "Object.defineProperty(process, 'versions', { value: { node: '12.22.12' } }); require(process.argv[1]);";
  const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", old, installed.program], { encoding: "utf8" });
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toBe(
    "tokenfwd: needs Node.js 20 or newer, and this is 12.22.12\nhint: install a newer Node.js, or put one first on PATH\n",
  );
});

test("alone in a directory it runs by its own name, knows its version, and teaches its commands", async () => {
  expect(await installed.run(["--version"])).toMatchObject({ code: 0, stderr: "", stdout: Buffer.from(`${version}\n`) });
  for (const words of [["--help"], ["sign", "--help"], ["keys", "--help"]]) {
    const { code, stdout, stderr } = await installed.run(words);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout.toString()).toMatch(/Usage: tokenfwd[\s\S]*tokenfwd (keys|sign)[\s\S]*Exit status:/);
    expect(
      stdout
        .toString()
        .split("\n")
        .filter((line) => line.length > 100),
    ).toEqual([]);
  }
  expect((await installed.run(["--help"])).stdout.toString()).not.toMatch(/--module|agent run \[/);
  expect(readdirSync(installed.bin)).toEqual(["tokenfwd"]);
});

test("a command line that is wrong ends with 2 and a hint, never with a stack", async () => {
  for (const words of [[], ["connect", "x"], ["sign", "file"], ["sign", "--key"], ["keys", "--", "x"]]) {
    const { code, stdout, stderr } = await installed.run(words);
    expect({ words, code, stdout: stdout.toString() }).toEqual({ words, code: 2, stdout: "" });
    expect(stderr).toMatch(/^tokenfwd: .* \[E_USAGE 2\]\nhint: .*\n$/);
  }
});
