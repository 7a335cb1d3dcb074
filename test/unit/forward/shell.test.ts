/* The login shell of --shell, whichever it is: its start files run, both variables are there, and the tools are on its PATH. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { remoteShell } from "../../../src/forward/remote/command.js";

let home: string;
let tools: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "tfwd-login-shell-"));
  tools = join(home, "a tools' dir");
  mkdirSync(tools);
  writeFileSync(join(tools, "tfwd-tool"), "#!/bin/sh\necho TOOL\n", { mode: 0o755 });
  writeFileSync(join(home, ".profile"), "STARTED=yes; export STARTED; PATH=/usr/bin:/bin; export PATH\n");
  writeFileSync(join(home, ".login"), "setenv STARTED yes\n");
  mkdirSync(join(home, ".config", "fish"), { recursive: true });
  writeFileSync(join(home, ".config", "fish", "config.fish"), "status is-login; and set -gx STARTED yes\n");
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

const ENVIRONMENT = { TOKENFWD_SOCKET: "/run/it's/p11.sock", P11_KIT_SERVER_ADDRESS: "unix:path=/run/it%27s/p11.sock" };

/** What a session of sshd does: the login shell runs the line, and what is typed goes to the shell that comes of it. */
const session = (shell: string, line: string, typed: string) =>
  // A pipe and not the socket that Node would give: fish reads no commands from a socket.
  spawnSync("/bin/sh", ["-c", 'cat | "$1" -c "$2"', "sh", shell, line], {
    input: typed,
    encoding: "utf8",
    env: { HOME: home, SHELL: `/bin/${shell}`, PATH: "/usr/local/bin:/usr/bin:/bin" },
  });

/** What was printed, without tcsh's complaint that a pipe is no terminal. */
const lines = (output: string) =>
  output
    .trim()
    .split("\n")
    .filter((line) => !/no access to tty|no job control/.test(line));

describe("a login shell", () => {
  for (const shell of ["sh", "bash", "dash", "csh", "tcsh", "fish"]) {
    it(`of ${shell} has run its start files and has both variables; its status comes back`, () => {
      const ended = session(
        shell,
        remoteShell(ENVIRONMENT, null),
        "/usr/bin/printenv TOKENFWD_SOCKET P11_KIT_SERVER_ADDRESS STARTED\nexit 7\n",
      );
      expect(lines(ended.stdout), ended.stderr).toEqual([...Object.values(ENVIRONMENT), "yes"]);
      expect(ended.status).toBe(7);
    });

    it(`of ${shell} finds the tools`, () => {
      const ended = session(shell, remoteShell(ENVIRONMENT, tools), "tfwd-tool\n/usr/bin/printenv TOKENFWD_SOCKET STARTED\nexit 7\n");
      expect(lines(ended.stdout)).toEqual(["TOOL", ENVIRONMENT.TOKENFWD_SOCKET, "yes"]);
      expect(ended.status).toBe(7);
    });
  }
});
