/*
 * The project's own tools do what the README says of them: setup is quiet when nothing is missing and says what is, and a
 * skipped test fails CI unless test/skips.txt has a reason for it.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "tokenfwd-infra-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const plain = (text: string): string => text.replace(/\u001b\[[0-9;]*m/g, "");

describe("npm run setup", () => {
  const setup = (path: string, ...args: string[]) =>
    spawnSync(process.execPath, [join(ROOT, "test/support/setup.mjs"), ...args], {
      encoding: "utf8",
      env: { PATH: path, CI: "true" },
      stdio: ["ignore", "pipe", "pipe"],
    });

  it("says nothing and ends with 0 when nothing is missing, twice", () => {
    const path = `${dirname(process.execPath)}:/usr/bin:/bin:/usr/sbin:/sbin`;
    for (const _ of [1, 2]) expect(setup(path)).toMatchObject({ status: 0, stdout: "", stderr: "" });
  });

  it("names what is missing and ends with 1 where there is no apt-get", () => {
    const empty = join(dir, "empty");
    mkdirSync(empty);
    const done = setup(empty);
    expect(done.status).toBe(1);
    expect(done.stderr).toMatch(/please install them: .*opensc.*gnutls-bin/);
  });

  it("refuses a word that it does not know", () => {
    expect(setup("/usr/bin:/bin", "--force")).toMatchObject({ status: 1, stderr: "setup: usage: npm run setup [-- --yes]\n" });
  });
});

describe("the summary", () => {
  const run = (source: string, ci: string, path = process.env["PATH"]) => {
    const root = mkdtempSync(join(dir, "run-"));
    symlinkSync(join(ROOT, "node_modules"), join(root, "node_modules"));
    writeFileSync(join(root, "a.test.mjs"), source);
    const words = [join(ROOT, "node_modules/vitest/vitest.mjs"), "run", "--root", root, "--globals", "--config", "none.config.mjs"];
    writeFileSync(join(root, "none.config.mjs"), "export default {};\n");
    const reporters = ["dot", join(ROOT, "test/support/choria/reporter.ts"), join(ROOT, "test/support/summary-reporter.ts")];
    // Without vitest's own variables, which would tell the inner run that it is a worker.
    const env = { PATH: path, HOME: process.env["HOME"], CI: ci };
    const named = reporters.flatMap((reporter) => ["--reporter", reporter]);
    const done = spawnSync(process.execPath, [...words, ...named], { cwd: root, encoding: "utf8", env });
    const lines = plain(done.stdout).trimEnd().split("\n");
    return { status: done.status, last: lines.at(-1), output: `${plain(done.stdout)}${plain(done.stderr)}` };
  };

  it("ends with the counts as the last line", () => {
    const done = run("it('a', () => {}); it('b', () => {});", "true");
    expect(done, done.output).toMatchObject({ status: 0, last: "2 passed, 0 failed, 0 skipped" });
  });

  it("counts a failed test and a file that cannot be read", () => {
    expect(run("it('a', () => {}); it('b', () => { throw new Error('b'); });", "")).toMatchObject({
      status: 1,
      last: "1 passed, 1 failed, 0 skipped",
    });
    expect(run("import './missing.mjs';", "")).toMatchObject({ status: 1, last: "0 passed, 1 failed, 0 skipped" });
  });

  it("fails CI for a skipped test that is not listed, and only CI", () => {
    const source = "it('a', () => {}); it.skip('a test nobody listed', () => {});";
    const done = run(source, "true");
    expect(done).toMatchObject({ status: 1, last: "1 passed, 0 failed, 1 skipped" });
    expect(done.output).toContain("skipped without a line in test/skips.txt: a test nobody listed");
    expect(run(source, "")).toMatchObject({ status: 0, last: "1 passed, 0 failed, 1 skipped" });
  });

  it("says when the real choria is not tried, where a file wants it", () => {
    const old = join(dir, "old-go");
    mkdirSync(old);
    writeFileSync(join(old, "go"), "#!/bin/sh\necho go version go1.19.8 linux/amd64\n", { mode: 0o755 });
    const path = `${old}:${process.env["PATH"]}`;
    const wants = run("// ../support/choria/network.js\nit('a', () => {});", "true", path);
    expect(wants.output).toContain("the real choria is not tried: Go 1.25 or newer is needed, this is go version go1.19.8 linux/amd64\n");
    expect(run("it('a', () => {});", "true", path).output).not.toContain("choria");
  });
});

it("what CI runs is the README's test command", () => {
  expect(readFileSync(join(ROOT, ".ci/run"), "utf8")).toMatch(/^exec npm test <\/dev\/null$/m);
  expect(readFileSync(join(ROOT, "README.md"), "utf8")).toMatch(/^npm test\b/m);
});
