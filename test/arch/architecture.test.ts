/*
 * The rules of the house, applied to the house. Each rule is first shown to fail on a source that breaks it.
 */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: sources under test are written as plain strings
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { ERRORS } from "../../src/base/errors.js";
import { EVENT_NAMES } from "../../src/cli/event-stream.js";
import { createProgram } from "../../src/cli/program.js";
import { parseSkips } from "../support/summary-reporter.js";
import { importsOf } from "./imports.js";
import { codesDocumented, fileShape, importDirection, noMachinePath, packageOwners, type SourceFile, wireIsPure } from "./rules.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** What is or would be committed. */
const PATHS = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "-z"], { cwd: ROOT, encoding: "utf8" })
  .split("\0")
  .filter(Boolean);

function load(wanted: (path: string) => boolean): SourceFile[] {
  return PATHS.filter(wanted).flatMap((path) => {
    try {
      return [{ path, text: readFileSync(join(ROOT, path), "utf8") }];
    } catch {
      return []; // listed by git and deleted in the working tree
    }
  });
}
const sources = load((path) => /^src\/.*\.ts$/.test(path));
const documents = load((path) => /^docs\/.*\.md$/.test(path));
const file = (path: string, text: string): SourceFile => ({ path, text });
const HEAD = "/*\n * A file that exists to break one rule of the house and no other.\n */\n";

describe("reading imports", () => {
  it("finds every way to name a module", () => {
    const text = [
      'import a from "p1";',
      'import type { B } from "p2";',
      "import 'p3';",
      'export * from "p4";',
      'const c = await import("p5");',
      "const d = await import(`p6`);",
      'const load = createRequire(import.meta.url); load("p7");',
      'createRequire(import.meta.url)("p8");',
      'require("p9"); require.resolve("p10"); import.meta.resolve("p11");',
      'type T = import("p12").T;',
      "import {\n  x,\n  y,\n} from\n  'p13';",
    ].join("\n");
    expect(importsOf(text).map(({ specifier }) => specifier)).toEqual(Array.from({ length: 13 }, (_, index) => `p${index + 1}`));
  });

  it("is not deceived by comments, strings, templates and regular expressions", () => {
    const text = [
      '// import "x1"',
      '/* from "x2" */',
      'const a = "import \\"x3\\"";',
      'const b = `from "x4" ${c /* from "x5" */} from "x6"`;',
      'const d = /from "x7"["\\/]/.test(e) || f / g / h;',
      'const i = j.import("x8"); const text = say("ssh2");',
      'import "real";',
    ].join("\n");
    expect(importsOf(text).map(({ specifier }) => specifier)).toEqual(["real"]);
  });

  it("reports a name that is computed", () => {
    expect(importsOf('await import("a" + b); await import(c); await import(`d${e}`)')).toEqual([
      { specifier: null },
      { specifier: null },
      { specifier: null },
    ]);
  });
});

describe("the house", () => {
  it("has sources in every layer that is pinned", () => {
    expect(sources.length).toBeGreaterThan(10);
  });

  it("imports in one direction", () => {
    const broken = [
      file("src/base/a.ts", 'import { x } from "../cryptoki/x.js";'),
      file("src/token/a.ts", 'import { x } from "../wire/x.js";'),
      file("src/wire/a.ts", 'import type { X } from "../token/x.js";'),
      file("src/agent/a.ts", 'const x = await import("../forward/x.js");'),
      file("src/forward/b/a.ts", 'export * from "../../agent/x.js";'),
      file("src/agent/c.ts", 'import "../cli/main.js";'),
      file("src/cli/a.ts", 'import "../../test/support/x.js";'),
      file("src/cli/b.ts", 'import "../base/errors";'),
      file("src/misc/a.ts", ""),
    ];
    for (const one of broken) expect(importDirection([one]), one.path).toHaveLength(1);
    expect(importDirection([file("src/cli/ok.ts", 'import "../agent/a.js"; import "./b.js"; import "../base/c.js";')])).toEqual([]);
    expect(importDirection(sources)).toEqual([]);
  });

  it("names each outside package in one place", () => {
    const broken = [
      file("src/agent/a.ts", 'import pkcs11js from "pkcs11js";'),
      file("src/token/host/a.ts", 'const load = createRequire(import.meta.url);\nload("pkcs11js");'),
      file("src/forward/remote/a.ts", 'import { Client } from "ssh2";'),
      file("src/forward/ssh2/a.ts", 'import { x } from "ssh2-streams";'),
      file("src/cli/a.ts", 'const { execa } = await import("execa");'),
      file("src/base/a.ts", 'import fs from "fs";'),
      file("src/base/b.ts", "await import(name);"),
    ];
    for (const one of broken) expect(packageOwners([one]), one.path).toHaveLength(1);
    expect(packageOwners(sources)).toEqual([]);
  });

  it("keeps the wire free of I/O", () => {
    expect(wireIsPure([file("src/wire/a.ts", 'import { connect } from "node:net";')])).toHaveLength(1);
    expect(wireIsPure([file("src/wire/a.ts", 'import type { Socket } from "node:net";')])).toHaveLength(1);
    expect(wireIsPure([file("src/agent/a.ts", 'import { connect } from "node:net";')])).toEqual([]);
    expect(wireIsPure(sources)).toEqual([]);
  });

  it("says at the top of every source what it is, and keeps it short", () => {
    expect(fileShape([file("src/a.ts", "export const a = 1;\n")])).toHaveLength(1);
    expect(fileShape([file("src/a.ts", "/* short */\n")])).toHaveLength(1);
    expect(fileShape([file("src/a.ts", HEAD + "\n".repeat(400))])).toHaveLength(1);
    expect(fileShape([file("src/a.ts", HEAD)])).toEqual([]);
    expect(fileShape(sources)).toEqual([]);
    // Of the tests only what they share: a test says in its name what it is.
    const shared = load((path) => /^test\/.*(?<!\.test)\.(ts|mjs)$/.test(path));
    expect(fileShape(shared).filter((complaint) => complaint.includes("head comment"))).toEqual([]);
  });

  it("explains every error code in docs/, and no code that does not exist", () => {
    const codes = Object.keys(ERRORS);
    expect(codesDocumented(["E_ONE", "E_TWO"], [file("docs/a.md", "`E_ONE` and `E_THREE`")])).toEqual([
      "no document names E_TWO",
      "the documents name E_THREE, which does not exist",
    ]);
    expect(codesDocumented(codes, documents)).toEqual([]);
  });

  it("describes every option in the guide, and every event in the operations page", () => {
    const page = (name: string): string => documents.find(({ path }) => path === name)?.text ?? "";
    const program = createProgram({
      connect: async () => {},
      agentRun: async () => {},
      doctor: async () => {},
      bastionDoctor: async () => {},
      tokenList: async () => {},
      exportByHand: async () => {},
      sign: async () => {},
      keys: async () => {},
      choria: { alone: async () => {}, withWords: async () => {} },
      trace: { trace: async () => {}, show: async () => {} },
    });
    const [connect, agent] = program.commands;
    const [connectPart = "", agentPart = ""] = page("docs/guide.md").split("## `tokenfwd agent run`");
    const undescribed = (command: Command | undefined, text: string): string[] =>
      command?.options.map(({ short, long }) => short ?? long ?? "").filter((name) => !new RegExp(`\\| .*\`${name}\\b`).test(text)) ?? [
        "?",
      ];
    expect(undescribed(connect, "| `--module PATH` |")).toContain("--policy");
    expect(undescribed(connect, connectPart)).toEqual([]);
    expect(undescribed(agent?.commands[0], agentPart)).toEqual([]);
    const [, keysPart = "", signPart = ""] =
      /### `tokenfwd keys`\n([\s\S]*?)### `tokenfwd sign`\n([\s\S]*?)\n## /.exec(page("docs/guide.md")) ?? [];
    const named = (name: string): Command | undefined => program.commands.find((command) => command.name() === name);
    expect(undescribed(named("keys"), keysPart)).toEqual([]);
    expect(undescribed(named("sign"), signPart)).toEqual([]);
    const doctorPart = page("docs/guide.md").split("## `tokenfwd doctor`")[1]?.split("\n## ")[0] ?? "";
    const hidden = named("doctor")?.options.flatMap(({ hidden, short, long }) => (hidden ? [short ?? long ?? ""] : [])) ?? [];
    expect(undescribed(named("doctor"), doctorPart).filter((name) => !hidden.includes(name))).toEqual([]);
    const exportPart = page("docs/guide.md").split("## `tokenfwd export`")[1]?.split("\n## ")[0] ?? "";
    expect(undescribed(named("export"), exportPart)).toEqual([]);
    const tracePart = page("docs/guide.md").split("## `tokenfwd trace`")[1]?.split("\n## ")[0] ?? "";
    expect(undescribed(named("trace"), tracePart)).toEqual([]);
    expect(undescribed(named("trace")?.commands[0], tracePart)).toEqual([]);
    const choria = named("choria")?.commands.filter((command) => !/^(help|tls-handshake)$/.test(command.name())) ?? [];
    expect(choria.length).toBeGreaterThanOrEqual(7);
    for (const command of choria) {
      const [, part = ""] =
        new RegExp(`\\n##.*\`tokenfwd choria ${command.name()}\`\n([\\s\\S]*?)\\n##`).exec(page("docs/guide/choria.md")) ?? [];
      expect(undescribed(command, part), command.name()).toEqual([]);
    }
    expect(undescribed(named("sign"), keysPart)).toContain("--expect-cert");
    const events = page("docs/operations.md").split("## Events")[1]?.split("\n## ")[0] ?? "";
    expect(EVENT_NAMES.filter((name) => !events.includes(`\`${name}\``))).toEqual([]);
  });

  it("names no path of the machine it was written on", () => {
    // In pieces, so that this file passes its own rule.
    const homes = [["", "work"].join("/"), ["", "root"].join("/"), ["", "tmp", "brief"].join("/")];
    if (process.env["HOME"]?.startsWith("/home/") === true) homes.push(process.env["HOME"]);
    for (const home of homes) expect(noMachinePath([file("README.md", `see ${home}/x`)], homes), home).not.toEqual([]);
    expect(noMachinePath([file("README.md", "see ./work/x, a/root/b and https://a.example/work/")], homes.slice(0, 2))).toEqual([]);
    expect(
      noMachinePath(
        load((path) => !path.startsWith("protocol/vectors/")),
        homes,
      ),
    ).toEqual([]);
  });

  it("has a reason for every test that may be skipped", () => {
    expect(() => parseSkips("a test without a reason\n")).toThrow("no reason");
    expect(() => parseSkips("a test  # \n")).toThrow("no reason");
    expect([...parseSkips("# comment\nsuite > a test  # needs a kernel with namespaces\n")]).toEqual(["suite > a test"]);
    expect(() => parseSkips(readFileSync(join(ROOT, "test/skips.txt"), "utf8"))).not.toThrow();
  });
});
