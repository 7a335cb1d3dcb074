/*
 * What a user gets: the packed project, installed into an empty prefix, does the whole demo. Long, because installing builds
 * native code. The installation needs the package registry, as any installation does.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const DEMO = join(ROOT, "test/demo/demo.mjs");
const dir = mkdtempSync(join(tmpdir(), "tfwd-pack-"));
const installed = join(dir, "prefix/lib/node_modules/tokenfwd");

function npm(cwd: string, ...args: readonly string[]): string {
  // Node's headers where this Node brought them, as npm run setup does.
  const prefix = dirname(dirname(process.execPath));
  const headers = existsSync(join(prefix, "include/node/node.h")) ? { npm_config_nodedir: prefix } : {};
  return execFileSync("npm", [...args], { cwd, encoding: "utf8", env: { ...process.env, ...headers }, stdio: ["ignore", "pipe", "pipe"] });
}

beforeAll(() => {
  npm(ROOT, "pack", "--pack-destination", dir);
  const tarball = readdirSync(dir).find((name) => name.endsWith(".tgz")) ?? "none";
  mkdirSync(join(dir, "prefix"));
  npm(dir, "install", "--global", join(dir, tarball), "--prefix", join(dir, "prefix"), "--no-audit", "--no-fund");
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

it("holds what a user needs and nothing of the tests", () => {
  const names = readdirSync(installed);
  for (const name of ["bin", "dist", "docs", "protocol", "README.md", "CHANGELOG.md", "LICENSE"]) expect(names).toContain(name);
  for (const name of ["src", "test", ".ci"]) expect(names).not.toContain(name);
});

it("says its version and does the whole demo", () => {
  const program = join(dir, "prefix/bin/tokenfwd");
  expect(execFileSync(program, ["--version"], { encoding: "utf8" }).trim()).toMatch(/^\d+\.\d+\.\d+/);
  const work = join(dir, "work");
  mkdirSync(work);
  const said = execFileSync(process.execPath, [DEMO, program], { encoding: "utf8", env: { ...process.env, TMPDIR: work } });
  expect(said).toContain("Everything is cleaned up.");
  expect(readdirSync(work)).toEqual([]);
});
