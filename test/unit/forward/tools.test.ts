/* Our own program on the bastion: what its shell does with the file, and what is said about each way that fails. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Answer, type Helper, parseAnswer } from "../../../src/forward/remote/helper.js";
import { bootstrapCommand, helperScript, SCRIPT_END } from "../../../src/forward/remote/helper-script.js";
import type { Place, Probe } from "../../../src/forward/remote/place.js";
import { findToolsNode, sendTools } from "../../../src/forward/remote/tools.js";
import { rejection } from "../../support/forward.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-tools-"));
  mkdirSync(join(directory, "run"), { mode: 0o700 });
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const BUNDLE = Buffer.from(`#!/usr/bin/env node\nconsole.log(process.argv.slice(2).join(" "), "\u20ac");\n${"// filler\n".repeat(3000)}`);
const sumOf = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

/** A directory with programs of ours, for the front of a PATH. */
function programs(name: string, texts: Readonly<Record<string, string>>): string {
  const bin = join(directory, name);
  mkdirSync(bin);
  for (const [program, text] of Object.entries(texts)) writeFileSync(join(bin, program), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  return bin;
}

interface Played {
  readonly answers: readonly Answer[];
  readonly stdout: string;
}

/** Plays lines to the real script; `verbs` may carry data of their own behind a newline. */
function play(verbs: readonly string[], path = process.env["PATH"] ?? "", runtimeDir = join(directory, "run")): Played {
  const { stdout } = spawnSync("/bin/sh", ["-c", bootstrapCommand("ab")], {
    input: `${helperScript("ab")}${SCRIPT_END}\n${verbs.map((verb, index) => `${index + 1} ${verb}\n`).join("")}`,
    env: { PATH: path, XDG_RUNTIME_DIR: runtimeDir },
    encoding: "utf8",
  });
  const answers = verbs.map((_, index) => {
    const [, text = ""] = new RegExp(`tokenfwd-ab ${index + 1} begin\n([^]*?)tokenfwd-ab ${index + 1} end`).exec(stdout) ?? [];
    return parseAnswer(text.split("\n"));
  });
  return { answers, stdout };
}

const put = (bytes: Buffer, sum = sumOf(bytes)) => {
  const text = `${bytes.toString("base64").replace(/.{1000}/g, "$&\n")}\n`;
  return `put ${text.length} ${sum}\n${text.slice(0, -1)}`;
};

describe("the script's search for Node", () => {
  it("takes the first on the login's PATH that is new enough, by either name, and says which others it saw", () => {
    const old = programs("old", { node: "echo v18.20.4", nodejs: "echo nonsense 1.2" });
    const young = programs("young", { nodejs: "echo v22.1.0" });
    const [found] = play(["findnode"], `${old}:relative::${young}:${process.env["PATH"]}`).answers;
    expect(Object.fromEntries(found ?? [])).toEqual({
      found: [`v18.20.4 ${old}/node`, `unknown ${old}/nodejs`],
      node: [`${young}/nodejs`],
      nodever: ["v22.1.0"],
    });
  });

  it("does not look where CMD would not: the directories that the script adds for itself are left out", () => {
    const bare = programs("bare", { node: "exit 1" });
    // The script itself lives on what it adds.
    const [found] = play(["findnode"], bare).answers;
    expect(Object.fromEntries(found ?? [])).toEqual({ found: [`unknown ${bare}/node`] });
  });

  it("takes no version for a number that is none", () => {
    const bin = programs("odd", { node: "printf 'v99999999999.1\\n'", nodejs: "printf 'v20.1;id\\n'" });
    expect(play(["findnode"], bin).answers[0]?.get("node")).toBeUndefined();
  });
});

describe("the script with the file", () => {
  it("takes it byte for byte, makes a program that starts it with the Node that was found, and removes both at the end", () => {
    const made = play(["probe", "claim 00000000 me-1", "findnode", put(BUNDLE), "release"]).answers[3];
    const bin = join(directory, "run/tokenfwd/00000000/bin");
    expect(Object.fromEntries(made ?? [])).toMatchObject({ sum: [sumOf(BUNDLE)], run: ["0"] });
    expect(readFileSync(join(bin, "tokenfwd-bastion.cjs")).equals(BUNDLE)).toBe(true);
    expect(readdirSync(bin).sort()).toEqual(["tokenfwd", "tokenfwd-bastion.cjs"]);
    expect([bin, `${bin}/tokenfwd`, `${bin}/tokenfwd-bastion.cjs`].map((one) => statSync(one).mode & 0o777)).toEqual([0o700, 0o700, 0o600]);
    const ran = spawnSync("tokenfwd", ["a b", "'"], { env: { PATH: bin }, encoding: "utf8" });
    expect(ran.stdout).toBe("a b ' \u20ac\n");
    play(["probe", "adopt 00000000 me-1", "exit"]);
    expect(readdirSync(join(directory, "run"))).toEqual([]);
  });

  it("works below a directory whose name holds what a shell would read", () => {
    const odd = join(directory, "a 'b' $(c) \\d \"e\" é");
    mkdirSync(odd, { mode: 0o700 });
    const node = join(odd, "n'o");
    mkdirSync(node);
    symlinkSync(process.execPath, join(node, "node"));
    const answers = play(["probe", "claim 00000000 me-1", "findnode", put(BUNDLE)], `${node}:${process.env["PATH"]}`, odd).answers;
    expect(answers[3]?.get("run")).toEqual(["0"]);
    expect(answers[3]?.get("said")?.[0]).toContain("--version");
    expect(readdirSync(odd)).toEqual(["n'o"]);
  });

  it.each([
    [["sha256sum"], "shasum"],
    [["sha256sum", "shasum"], "openssl"],
    [["sha256sum", "shasum", "openssl"], "node"],
  ])("has the sum without %j", (missing) => {
    const bin = programs("broken", Object.fromEntries(missing.map((name) => [name, "echo no; exit 1"])));
    const [, , , made] = play(["probe", "claim 00000000 me-1", "findnode", put(BUNDLE)], `${bin}:${process.env["PATH"]}`).answers;
    expect(made?.get("sum")).toEqual([sumOf(BUNDLE)]);
    expect(made?.get("run")).toEqual(["0"]);
  });

  it("never starts what has another sum, and the next command is heard all the same", () => {
    const witness = join(directory, "witness");
    const evil = Buffer.from(`require("fs").writeFileSync(${JSON.stringify(witness)}, "")`);
    const { answers } = play(["probe", "claim 00000000 me-1", "findnode", put(evil, sumOf(BUNDLE)), "look 00000000"]);
    expect(Object.fromEntries(answers[3] ?? [])).toEqual({ sum: [sumOf(evil)], fail: ["sum"] });
    expect(answers[4]?.get("owner")).toEqual(["me-1"]);
    expect(existsSync(witness)).toBe(false);
    expect(readdirSync(join(directory, "run"))).toEqual([]);
  });

  it("reads no line of the file as a command, even where Node reads nothing of it", () => {
    const bin = programs("liar", { node: 'test "$1" = --version && echo v20.0.0 || exit 9' });
    const { answers, stdout } = play(
      ["probe", "claim 00000000 me-1", "findnode", put(BUNDLE), "look 00000000"],
      `${bin}:${process.env["PATH"]}`,
    );
    expect(answers[3]?.get("fail")).toEqual(["write"]);
    expect(answers[4]?.get("owner")).toEqual(["me-1"]);
    expect(stdout.match(/ begin$/gm)?.length).toBe(5);
  });

  it("leaves nothing when the connection goes in the midst of it", () => {
    const half = put(BUNDLE).slice(0, 9000);
    play(["probe", "claim 00000000 me-1", "findnode", half]);
    expect(readdirSync(join(directory, "run"))).toEqual([]);
  });

  it("replaces what a dead connect left, and removes it also when it brings no tools itself", () => {
    const bin = join(directory, "run/tokenfwd/00000000/bin");
    mkdirSync(bin, { recursive: true, mode: 0o700 });
    for (const name of ["tokenfwd", "tokenfwd.new", "tokenfwd-bastion.cjs", "tokenfwd-bastion.cjs.new"])
      writeFileSync(join(bin, name), "old");
    writeFileSync(join(bin, "../owner"), "dead-1\n");
    const [, , , made] = play(["probe", "claim 00000000 me-1 dead-1", "findnode", put(BUNDLE), "release"]).answers;
    expect(made?.get("run")).toEqual(["0"]);
    expect(readFileSync(join(bin, "tokenfwd-bastion.cjs")).equals(BUNDLE)).toBe(true);
    play(["probe", "claim 00000000 me-2 me-1", "exit"]);
    expect(readdirSync(join(directory, "run"))).toEqual([]);
  });

  it("removes our names alone, and follows no link", () => {
    const elsewhere = join(directory, "elsewhere");
    mkdirSync(elsewhere, { mode: 0o700 });
    writeFileSync(join(elsewhere, "tokenfwd"), "yours");
    const base = join(directory, "run/tokenfwd");
    mkdirSync(join(base, "00000000"), { recursive: true, mode: 0o700 });
    symlinkSync(elsewhere, join(base, "00000000/bin"));
    const [, , , linked] = play(["probe", "claim 00000000 me-1", "findnode", put(BUNDLE)]).answers;
    expect(linked?.get("fail")).toEqual(["link"]);
    expect(readFileSync(join(elsewhere, "tokenfwd"), "utf8")).toBe("yours");
    expect(lstatSync(join(base, "00000000/bin")).isSymbolicLink()).toBe(true);

    mkdirSync(join(base, "00000001/bin"), { recursive: true, mode: 0o700 });
    writeFileSync(join(base, "00000001/bin/mine"), "");
    play(["probe", "claim 00000001 me-1", "findnode", put(BUNDLE)]);
    expect(readdirSync(join(base, "00000001"), { recursive: true })).toEqual(["bin", "bin/mine"]);
  });
});

describe("what is said", () => {
  const probe = { runtimeDir: "/run/user/7" } as Probe;
  const place: Place = { name: "00000000", socket: "/run/user/7/tokenfwd/00000000/p11.sock", cleared: false };
  const node = { node: "/usr/bin/node", nodeVersion: "v20.0.0" };
  const helper = (...lines: string[]): Helper => {
    const answer = async () => parseAnswer(lines);
    return { pty: false, said: "", request: answer, send: answer, gone: new Promise(() => {}), close() {} };
  };

  it.each([
    [[], /neither node nor nodejs is on the PATH/],
    [["found=v18.1.0 /usr/bin/node", "found=unknown /opt/n/nodejs"], /\/usr\/bin\/node is v18\.1\.0, \/opt\/n\/nodejs does not say/],
  ])("names the Node that was found in its place: %j", async (lines, message) => {
    const error = await rejection(findToolsNode(helper(...lines)));
    expect(error).toMatchObject({ code: "E_TOOLS", message: expect.stringMatching(message) });
    expect(error.hint).toContain("Node 20");
  });

  const sum = sumOf(BUNDLE);
  it.each([
    [["fail=full"], /no room/],
    [["fail=write"], /cannot be written/],
    [["fail=mode"], /not ours alone \(mode\)/],
    [["fail=sum", `sum=${"0".repeat(64)}`], /not what was sent/],
    [["run=0"], /SHA-256 is unknown/],
    // A bastion that says all is well must still name the right sum.
    [[`sum=${"1".repeat(64)}`, "run=0"], /not what was sent/],
    [[`sum=${sum}`, "run=126", "said=sh: Permission denied"], /noexec/],
    [[`sum=${sum}`, "run=1", "said=SyntaxError"], /ended with 1 and said SyntaxError/],
    [[`sum=${sum}`], /ended with nothing/],
  ])("refuses %j", async (lines, message) => {
    expect(await rejection(sendTools(helper(...lines), probe, place, node, BUNDLE))).toMatchObject({
      code: "E_TOOLS",
      message: expect.stringMatching(message),
    });
  });

  it("names the directory, the program and what runs it when all is well", async () => {
    expect(await sendTools(helper(`sum=${sum}`, "run=0", "said=1.2.3"), probe, place, node, BUNDLE)).toEqual({
      directory: "/run/user/7/tokenfwd/00000000/bin",
      path: "/run/user/7/tokenfwd/00000000/bin/tokenfwd",
      node: "/usr/bin/node",
      nodeVersion: "v20.0.0",
      bytes: BUNDLE.length,
    });
  });

  it("refuses a directory that no PATH can name", async () => {
    const colon = { runtimeDir: "/run/a:b" } as Probe;
    expect(await rejection(sendTools(helper(`sum=${sum}`, "run=0"), colon, place, node, BUNDLE))).toMatchObject({
      code: "E_TOOLS",
      message: expect.stringContaining("colon"),
    });
  });
});
