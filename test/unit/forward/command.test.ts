/* argv through a login shell: whatever shell it is, the bytes that arrive are the bytes that were given. */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { MAX_ARGV_BYTES, remoteCommand } from "../../../src/forward/remote/command.js";
import { bootstrapCommand } from "../../../src/forward/remote/helper-script.js";

const AWKWARD: readonly (string | Buffer)[] = [
  "",
  "a",
  "a b",
  " a ",
  "'",
  '"',
  "''",
  "'\\''",
  "\\",
  "\\\\",
  "\\n",
  "\\'",
  "!",
  "!!",
  "a!b",
  "$HOME",
  "$(id)",
  "`id`",
  "*",
  "~",
  "-n",
  "a\nb",
  "\n",
  "a\n",
  "\t",
  ";",
  "|&><",
  "%s%d%%",
  "\\c",
  "\\0101",
  "#x",
  "{a,b}",
  "[a]",
  "^a",
  "A=B",
  "é",
  "(",
  ")",
  "\r",
  "\x7f",
  "\x1b[0m",
  "012",
  Buffer.from([0xff, 0xfe, 0xc3]),
  Buffer.from(Array.from({ length: 255 }, (_, index) => index + 1)),
  "x".repeat(1000),
];
const bytesOf = (argument: string | Buffer) => (typeof argument === "string" ? Buffer.from(argument) : argument);

describe("a remote command line", () => {
  for (const shell of ["sh", "bash", "dash", "csh", "tcsh", "fish"]) {
    it(`reaches the command byte for byte through ${shell}`, () => {
      // csh takes no long line, so the arguments go in groups.
      for (let from = 0; from < AWKWARD.length; from += 8) {
        const group = AWKWARD.slice(from, from + 8);
        const command = remoteCommand(["/bin/sh", "-c", 'printf "%s\\000" "$TFWD_A" "$TFWD_B" "$@"', "sh", ...group], {
          TFWD_A: "a b'c",
          TFWD_B: "\\!",
        });
        const result = spawnSync(shell, ["-c", command], { env: { ...process.env, LC_ALL: "C.UTF-8" } });
        const wanted = Buffer.concat(["a b'c", "\\!", ...group].flatMap((argument) => [bytesOf(argument), Buffer.from([0])]));
        expect(result.stderr.toString()).toBe("");
        expect(result.stdout.toString("latin1")).toBe(wanted.toString("latin1"));
      }
    });
  }

  for (const shell of ["sh", "bash", "dash", "csh", "tcsh", "fish"]) {
    it(`finds what comes first on the PATH, before what the login shell ${shell} has made of it`, () => {
      const first = "/a b'c!\\d$HOME";
      const command = remoteCommand(["/bin/sh", "-c", 'printf %s "$PATH"'], {}, first);
      const login = spawnSync(shell, ["-c", "exec /bin/sh -c 'printf %s \"$PATH\"'"], { encoding: "utf8" }).stdout;
      expect(login).not.toBe("");
      expect(spawnSync(shell, ["-c", command], { encoding: "utf8" }).stdout).toBe(`${first}:${login}`);
    });
  }

  it("holds nothing that csh or fish would change", () => {
    for (const command of [remoteCommand(["a'b", "!\\\n"]), bootstrapCommand("00ff")]) {
      expect(command).not.toMatch(/[!\n]/);
      expect(command).not.toMatch(/\\[\\']/);
    }
    expect(bootstrapCommand("0".repeat(32)).length).toBeLessThan(1000);
  });

  it("leaves the command's environment as it was", () => {
    const result = spawnSync("sh", ["-c", remoteCommand(["env"])], { env: { PATH: process.env["PATH"] ?? "", b: "1", w: "2" } });
    expect(
      result.stdout
        .toString()
        .split("\n")
        .filter((line) => /^(b|w|_t.)=/.test(line))
        .sort(),
    ).toEqual(["b=1", "w=2"]);
  });

  it("takes 32 KiB in all and not a byte more, and no NUL", () => {
    const most = "x".repeat(MAX_ARGV_BYTES - "printf".length - "%s".length - 3);
    const result = spawnSync("sh", ["-c", remoteCommand(["printf", "%s", most])]);
    expect(result.stdout.length).toBe(most.length);
    expect(() => remoteCommand(["printf", "%s", `${most}x`])).toThrow(expect.objectContaining({ code: "E_USAGE" }));
    expect(() => remoteCommand(["a\0b"])).toThrow(expect.objectContaining({ code: "E_USAGE" }));
    expect(() => remoteCommand([])).toThrow(expect.objectContaining({ code: "E_USAGE" }));
  });
});
