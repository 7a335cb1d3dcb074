/*
 * The PIN on a real token through a real terminal and a fake pinentry: which question, how many tries the module sees,
 * and how the terminal is left.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { CKR } from "../../src/cryptoki/rv.js";
import { createFakePinentry } from "../support/fake-pinentry.js";
import { spawnUnderPty } from "../support/pty.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";

const ASKER = fileURLToPath(new URL("./host-asker.mjs", import.meta.url));
const PIN = "71934-secret";
const PROMPT = /ops@bastion asks for the PIN of the token "tokenfwd test": /;
const FINAL_TRY = "flags 20000";

let token: SoftHsm;
let shim: ShimModule;
let dir: string;

beforeAll(async () => {
  token = await createSoftHsm({ pin: PIN, objects: "ec", certificates: false });
  dir = await mkdtemp(join(tmpdir(), "tokenfwd-host-pin-"));
});
afterAll(async () => {
  await token.dispose();
  await rm(dir, { recursive: true, force: true });
});
beforeEach(async () => {
  shim = await createShimModule(token.modulePath);
  return () => shim.dispose();
});

function environment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const { DISPLAY: _display, WAYLAND_DISPLAY: _wayland, GPG_TTY: _tty, TOKENFWD_PINENTRY: _pinentry, ...env } = token.env;
  return { ...env, ...shim.env, HOST_MODULE: shim.modulePath, ...more };
}

const inTerminal = (mode: string, more: NodeJS.ProcessEnv = {}) =>
  spawnUnderPty({ argv: [process.execPath, ASKER, mode], env: environment(more) });

/** Runs the program with no controlling terminal. */
function withoutTerminal(mode: string, more: NodeJS.ProcessEnv = {}, shell?: string): Promise<string> {
  const command = shell ?? `exec "$0" "$1" "$2"`;
  return new Promise((resolve, reject) => {
    execFile("setsid", ["-w", "sh", "-c", command, process.execPath, ASKER, mode], { env: environment(more) }, (error, stdout, stderr) =>
      error ? reject(new Error(`${error.message}\n${stderr}`)) : resolve(stdout),
    );
  });
}

/** The values that the program printed, by name. */
function results(output: string): Record<string, unknown> {
  const found = [...output.matchAll(/RESULT (\S+) (.*?)\r?\n/g)];
  return Object.fromEntries(found.map(([, name, json]) => [String(name), JSON.parse(String(json))]));
}

function pids(output: string): { readonly program: number; readonly host: number } {
  return results(output)["pids"] as { program: number; host: number };
}

describe("a PIN typed at the terminal", () => {
  it("unlocks the token, is not echoed, and leaves the terminal as it was", async () => {
    await using terminal = inTerminal("unlock");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\r`);
    const { output, echo, lineEditing, exitCode } = await terminal.exited;
    expect(results(output)).toMatchObject({ unlock: { rv: CKR.CKR_OK, asked: true }, state: 3 });
    expect(output).not.toContain(PIN);
    expect({ echo, lineEditing, exitCode, logins: await shim.logins() }).toEqual({ echo: true, lineEditing: true, exitCode: 0, logins: 1 });
  });

  it("may be corrected with backspace, ctrl-U and arrow keys before it is sent", async () => {
    await using terminal = inTerminal("unlock");
    await terminal.expect(PROMPT);
    terminal.send(`wrong\x15${PIN}é\x7f\x1b[D\x7f${PIN.at(-1)}\n`);
    expect(results((await terminal.exited).output)["unlock"]).toEqual({ rv: CKR.CKR_OK, asked: true });
    expect(await shim.logins()).toBe(1);
  });

  it.each([
    ["ctrl-C", "12\x03"],
    ["ctrl-D", "\x04"],
    ["Esc", "\x1b"],
    ["a bare Enter", "\n"],
  ])("%s cancels without spending a try", async (_key, typed) => {
    await using terminal = inTerminal("unlock");
    await terminal.expect(PROMPT);
    terminal.send(typed);
    const { output, echo, lineEditing } = await terminal.exited;
    expect(results(output)["unlock"]).toEqual({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" });
    expect({ echo, lineEditing, logins: await shim.logins() }).toEqual({ echo: true, lineEditing: true, logins: 0 });
  });

  it("is asked again in the same unlock when it was wrong, with what the token says about tries", async () => {
    await using terminal = inTerminal("unlock");
    await terminal.expect(PROMPT);
    await shim.control("flags 10000");
    terminal.send("wrong\n");
    await terminal.expect(/the PIN was wrong\r+\ntokenfwd: few tries are left\r+\n/);
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    expect(results((await terminal.exited).output)["unlock"]).toEqual({ rv: CKR.CKR_OK, asked: true });
    expect(await shim.logins()).toBe(2);
  });

  it("times out, and the terminal is put back", async () => {
    await using terminal = inTerminal("unlock", { HOST_TIMEOUT_MS: "300" });
    await terminal.expect(PROMPT);
    terminal.send("12");
    const { output, echo, lineEditing } = await terminal.exited;
    expect(results(output)["unlock"]).toEqual({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "timeout" });
    expect({ echo, lineEditing }).toEqual({ echo: true, lineEditing: true });
  });

  it("is not waited for any more when the client has gone", async () => {
    await using terminal = inTerminal("abort");
    await terminal.expect(PROMPT);
    process.kill(pids(terminal.output).program, "SIGUSR2");
    const { output, echo, lineEditing } = await terminal.exited;
    expect(results(output)["unlock"]).toMatchObject({ rv: CKR.CKR_FUNCTION_CANCELED, reason: "cancelled" });
    expect({ echo, lineEditing, logins: await shim.logins() }).toEqual({ echo: true, lineEditing: true, logins: 0 });
  });

  it("does not hold up the calls of other clients while it is typed", async () => {
    await using terminal = inTerminal("busy");
    await terminal.expect(PROMPT);
    await terminal.expect(/RESULT meanwhile 0/);
    terminal.send(`${PIN}\n`);
    expect(results((await terminal.exited).output)["unlock"]).toEqual({ rv: CKR.CKR_OK, asked: true });
  });

  it("leaves the terminal as it was even when the host process is killed under the question", async () => {
    await using terminal = inTerminal("kill");
    await terminal.expect(PROMPT);
    process.kill(pids(terminal.output).program, "SIGUSR2");
    const { output, echo, lineEditing } = await terminal.exited;
    expect(results(output)["unlock"]).toEqual({ rv: CKR.CKR_DEVICE_REMOVED, asked: false });
    expect({ echo, lineEditing }).toEqual({ echo: true, lineEditing: true });
  });

  it("leaves the terminal as it was, and no process behind, when its agent is killed under the question", async () => {
    // The shell stays, so the terminal does.
    const argv = ["sh", "-c", '"$0" "$1" wait; read line', process.execPath, ASKER];
    await using terminal = spawnUnderPty({ argv, env: environment() });
    await terminal.expect(PROMPT);
    const { program, host } = pids(terminal.output);
    process.kill(program, "SIGKILL");
    await vi.waitFor(() => expect(() => process.kill(host, 0)).toThrow(/ESRCH/), { timeout: 5000 });
    terminal.send("\n");
    expect(await terminal.exited).toMatchObject({ echo: true, lineEditing: true });
  });

  it("is asked once for simultaneous requests: who finds the token open in its turn is told that nobody was asked", async () => {
    await using terminal = inTerminal("together");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    const { output } = await terminal.exited;
    expect(results(output)).toMatchObject({
      first: { rv: CKR.CKR_OK, asked: true },
      second: { rv: CKR.CKR_OK, asked: false },
      other: { rv: CKR.CKR_OK, asked: false },
    });
    expect(await shim.logins()).toBe(1);
  });
});

describe("a PIN that the token accepted", () => {
  it("is not needed while the token is logged in", async () => {
    await using terminal = inTerminal("twice");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    expect(results((await terminal.exited).output)["second"]).toEqual({ rv: CKR.CKR_OK, asked: false });
    expect(await shim.logins()).toBe(1);
  });

  it("logs in once more after a release without asking", async () => {
    await using terminal = inTerminal("release");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    expect(results((await terminal.exited).output)).toMatchObject({ second: { rv: CKR.CKR_OK, asked: false }, state: 3 });
    expect(await shim.logins()).toBe(2);
  });

  it("is forgotten by a lock, which logs the token out", async () => {
    await using terminal = inTerminal("lock");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    await terminal.expect(/RESULT state 2/);
    await terminal.expect(PROMPT);
    terminal.send("\x03");
    expect(results((await terminal.exited).output)["second"]).toMatchObject({ reason: "cancelled" });
  });
});

describe("a token that is pulled", () => {
  it("takes its PIN with it", async () => {
    await using terminal = inTerminal("pulled");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    await terminal.expect(/RESULT first/);
    await shim.control("C_GetSessionInfo rv e0");
    process.kill(pids(terminal.output).program, "SIGUSR2");
    await terminal.expect(PROMPT);
    terminal.send("\x03");
    const { gone, second } = results((await terminal.exited).output);
    expect({ gone, second }).toMatchObject({ gone: CKR.CKR_TOKEN_NOT_PRESENT, second: { asked: true, reason: "cancelled" } });
    expect(await shim.logins()).toBe(1);
  });
});

describe("a key that wants a log-in for each signature", () => {
  it("gets it from the PIN that was typed once", async () => {
    await using terminal = inTerminal("context");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    const { refused, context, signed } = results((await terminal.exited).output);
    expect({ refused, context, signed }).toEqual({
      refused: CKR.CKR_USER_NOT_LOGGED_IN,
      context: { rv: CKR.CKR_OK, asked: false },
      signed: CKR.CKR_OK,
    });
  });
});

describe("a host whose agent is killed", () => {
  it("ends when the module call that it is blocked in returns", async () => {
    await shim.control("C_GetInfo sleep 600");
    await using terminal = inTerminal("block");
    await terminal.expect(/RESULT blocked/);
    const { program, host } = pids(terminal.output);
    process.kill(program, "SIGKILL");
    await vi.waitFor(() => expect(() => process.kill(host, 0)).toThrow(/ESRCH/), { timeout: 5000 });
  });
});

describe("the last try", () => {
  it("is spent only after a yes", async () => {
    await shim.control(FINAL_TRY);
    await using terminal = inTerminal("unlock");
    await terminal.expect(/this is the last try/);
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    await terminal.expect(/one PIN try is left on the token "tokenfwd test".*\[yes\/no\]/);
    terminal.send("yes\n");
    expect(results((await terminal.exited).output)["unlock"]).toEqual({ rv: CKR.CKR_OK, asked: true });
    expect(await shim.logins()).toBe(1);
  });

  it("is kept when the answer is anything else", async () => {
    await shim.control(FINAL_TRY);
    await using terminal = inTerminal("unlock");
    await terminal.expect(PROMPT);
    terminal.send(`${PIN}\n`);
    await terminal.expect(/\[yes\/no\]/);
    terminal.send("\n");
    expect(results((await terminal.exited).output)["unlock"]).toEqual({
      rv: CKR.CKR_FUNCTION_REJECTED,
      asked: true,
      reason: "last-try-declined",
    });
    expect(await shim.logins()).toBe(0);
  });

  it("of a PIN file is kept when there is nobody to ask", async () => {
    await shim.control(FINAL_TRY);
    const path = join(dir, "final");
    await writeFile(path, `${PIN}\n`, { mode: 0o600 });
    const output = await withoutTerminal("unlock", { HOST_PIN_SOURCE: JSON.stringify({ kind: "file", path }) });
    expect(results(output)["unlock"]).toMatchObject({ rv: CKR.CKR_FUNCTION_REJECTED, reason: "last-try-declined" });
    expect(await shim.logins()).toBe(0);
  });
});

describe("a token that takes no PIN", () => {
  it("that is locked is not asked for", async () => {
    await shim.control("flags 40000");
    await using terminal = inTerminal("unlock");
    const { output } = await terminal.exited;
    expect(results(output)["unlock"]).toEqual({ rv: CKR.CKR_PIN_LOCKED, asked: false, reason: "locked" });
    expect(output).not.toMatch(/PIN of the token/);
  });

  it("that locks under the try ends the unlock", async () => {
    await shim.control("C_Login rv a4");
    await using terminal = inTerminal("unlock");
    await terminal.expect(PROMPT);
    terminal.send("1\n");
    expect(results((await terminal.exited).output)["unlock"]).toEqual({ rv: CKR.CKR_PIN_LOCKED, asked: true, reason: "locked" });
  });

  it("but has a PIN pad of its own is refused", async () => {
    await shim.control("flags 100");
    expect(results(await withoutTerminal("unlock"))["unlock"]).toEqual({
      rv: CKR.CKR_FUNCTION_NOT_SUPPORTED,
      asked: false,
      reason: "pin-pad",
    });
  });
});

describe("without a terminal", () => {
  it("and without a pinentry there is nothing to ask with", async () => {
    const output = await withoutTerminal("unlock");
    expect(results(output)["unlock"]).toEqual({ rv: CKR.CKR_FUNCTION_REJECTED, asked: false, reason: "no-source" });
    expect(results(await withoutTerminal("can-ask"))["can-ask"]).toBe(false);
  });

  it("pinentry is asked, its escapes are undone, and it is told what went wrong", async () => {
    const escaped = PIN.replace("-", "%2D");
    const { program, transcript } = await createFakePinentry(dir, "good", {
      GETPIN: `D ${escaped}\\nOK\\n`,
      OPTION: "ERR 83886254 unknown option\\n",
    });
    const output = await withoutTerminal("unlock", { TOKENFWD_PINENTRY: program, GPG_TTY: "/dev/nowhere" });
    expect(results(output)).toMatchObject({ unlock: { rv: CKR.CKR_OK, asked: true }, state: 3 });
    const sent = await readFile(transcript, "utf8");
    expect(sent).toContain("OPTION ttyname=/dev/nowhere\n");
    expect(sent).toContain('SETDESC ops@bastion asks for the PIN of the token "tokenfwd test"\n');
    expect(sent).not.toContain(PIN);
    expect(results(await withoutTerminal("can-ask", { TOKENFWD_PINENTRY: program }))["can-ask"]).toBe(true);
  });

  it("a cancel in pinentry cancels the unlock", async () => {
    const { program } = await createFakePinentry(dir, "cancelling", { GETPIN: "ERR 83886179 Operation cancelled\\n" });
    const output = await withoutTerminal("unlock", { TOKENFWD_PINENTRY: program });
    expect(results(output)["unlock"]).toEqual({ rv: CKR.CKR_FUNCTION_CANCELED, asked: true, reason: "cancelled" });
    expect(await shim.logins()).toBe(0);
  });

  it("a pinentry that cannot show anything counts as nothing to ask with", async () => {
    const { program } = await createFakePinentry(dir, "broken", { GETPIN: "ERR 83918950 Inappropriate ioctl for device\\n" });
    const output = await withoutTerminal("unlock", { TOKENFWD_PINENTRY: program });
    expect(results(output)["unlock"]).toEqual({ rv: CKR.CKR_FUNCTION_REJECTED, asked: false, reason: "no-source" });
  });

  it("a confirmation is a yes only when pinentry says so", async () => {
    const yes = await createFakePinentry(dir, "yes", { CONFIRM: "OK\\n" });
    const no = await createFakePinentry(dir, "no", { CONFIRM: "ERR 83886194 Not confirmed\\n" });
    expect(results(await withoutTerminal("confirm", { TOKENFWD_PINENTRY: yes.program }))["confirm"]).toBe(true);
    expect(results(await withoutTerminal("confirm", { TOKENFWD_PINENTRY: no.program }))["confirm"]).toBe(false);
    expect(results(await withoutTerminal("confirm"))["confirm"]).toBe(false);
  });
});

describe("a PIN in a file or behind a descriptor", () => {
  const fromFile = (path: string) => ({ HOST_PIN_SOURCE: JSON.stringify({ kind: "file", path }) });

  it("unlocks without asking", async () => {
    const path = join(dir, "pin");
    await writeFile(path, `${PIN}\nsecond line\n`, { mode: 0o600 });
    expect(results(await withoutTerminal("unlock", fromFile(path)))).toMatchObject({ unlock: { rv: CKR.CKR_OK, asked: false }, state: 3 });
  });

  it("is tried once when it is wrong, and not again", async () => {
    const path = join(dir, "wrong");
    await writeFile(path, "wrong-pin\n", { mode: 0o600 });
    const wrong = { rv: CKR.CKR_PIN_INCORRECT, asked: false, reason: "wrong-pin" };
    expect(results(await withoutTerminal("twice", fromFile(path)))).toMatchObject({ first: wrong, second: wrong });
    expect(await shim.logins()).toBe(1);
  });

  it("is refused when others may read it, when it is a link, and when it is missing", async () => {
    const open = join(dir, "open");
    await writeFile(open, PIN, { mode: 0o644 });
    const link = join(dir, "link");
    await symlink(join(dir, "pin"), link);
    await expect(withoutTerminal("unlock", fromFile(open))).rejects.toThrow(/E_PIN_SOURCE|read or written by others/);
    await expect(withoutTerminal("unlock", fromFile(link))).rejects.toThrow(/symbolic link/);
    await expect(withoutTerminal("unlock", fromFile(join(dir, "missing")))).rejects.toThrow(/does not exist/);
  });

  it("behind a descriptor is read once and serves every unlock", async () => {
    const source = { HOST_PIN_SOURCE: JSON.stringify({ kind: "fd", fd: 7 }) };
    const output = await withoutTerminal("release", source, `printf '%s\\n' '${PIN}' | { exec 7<&0 0</dev/null; exec "$0" "$1" "$2"; }`);
    expect(results(output)).toMatchObject({ first: { rv: CKR.CKR_OK, asked: false }, second: { rv: CKR.CKR_OK, asked: false }, state: 3 });
    expect(await shim.logins()).toBe(2);
  });

  it("behind a descriptor that is not open is refused at the start", async () => {
    const source = { HOST_PIN_SOURCE: JSON.stringify({ kind: "fd", fd: 199 }) };
    await expect(withoutTerminal("unlock", source)).rejects.toThrow(/descriptor 199 is not open/);
  });
});
