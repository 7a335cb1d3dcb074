/*
 * Log-ins that ask: a password, keyboard-interactive, several rounds. A real sshd with a PAM stack of its own asks for one password;
 * for several prompts, rounds and hostile texts the peer is ssh2's server, because no sshd asks so without other modules of PAM.
 */
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import ssh2, { type AuthContext, type Connection, type KeyboardAuthContext } from "ssh2";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { SshSettings } from "../../src/forward/ssh-settings.js";
import { connectSsh2 } from "../../src/forward/ssh2/connect.js";
import { openTestForward, type RecordedUi, recordingUi, rejection, settingsOf } from "../support/forward.js";
import { createPamStage, type PamStage, pamStageMissing } from "../support/pam-stage.js";
import { type Sshd, startSshd } from "../support/sshd.js";

const PASSWORD = "open sesame";
const methods = (...names: string[]) => [`PreferredAuthentications=${names.join(",")}`];
/** What was tried, in order. */
const tried = (ui: RecordedUi) =>
  ui.events.filter((event) => event.name === "auth" && "ok" in event.data).map(({ data }) => [data["method"], data["ok"]]);

describe.skipIf(pamStageMissing() !== null)("sshd with PAM", () => {
  let stage: PamStage;
  let sshd: Sshd;
  beforeAll(async () => {
    stage = createPamStage(PASSWORD);
    sshd = await startSshd({ within: stage.within, config: stage.config });
  });
  afterAll(async () => {
    await sshd?.dispose();
    stage?.dispose();
  });

  for (const method of ["keyboard-interactive", "password"] as const) {
    it(`lets in by ${method}: the question says who asks, the answer is typed without echo`, async () => {
      const ui = recordingUi({ passphrases: ["wrong", PASSWORD] });
      const { forward } = await openTestForward(sshd, { recorded: ui, settings: await settingsOf(sshd, methods(method)) });
      await forward.close();
      expect(tried(ui)).toEqual([
        [method, false],
        [method, true],
      ]);
      expect(ui.questions).toHaveLength(2);
      for (const question of ui.questions)
        expect(question).toEqual({
          lines: [expect.stringMatching(new RegExp(`^\\(${sshd.user}@127\\.0\\.0\\.1\\) [Pp]assword: $`))],
          echo: false,
        });
      expect(JSON.stringify(ui.events)).not.toContain(PASSWORD);
    });
  }

  it("is asked no more often than NumberOfPasswordPrompts says", async () => {
    const ui = recordingUi({ passphrases: ["a", "b", "c", "d", "e", "f"] });
    const settings = await settingsOf(sshd, [...methods("password"), "NumberOfPasswordPrompts=2"]);
    const error = await rejection(openTestForward(sshd, { recorded: ui, settings }));
    expect(error).toMatchObject({ code: "E_SSH_AUTH", message: expect.stringContaining("tried password; password") });
    expect(ui.questions).toHaveLength(2);
  });

  it("asks nobody under BatchMode, and is told so when nobody answers", async () => {
    const silent = recordingUi({ passphrases: [PASSWORD] });
    const batch = await settingsOf(sshd, [...methods("password", "keyboard-interactive"), "BatchMode=yes"]);
    expect((await rejection(openTestForward(sshd, { recorded: silent, settings: batch }))).code).toBe("E_SSH_AUTH");
    expect(silent.questions).toEqual([]);
    const nobody = recordingUi();
    const settings = await settingsOf(sshd, methods("keyboard-interactive", "password"));
    const error = await rejection(openTestForward(sshd, { recorded: nobody, settings }));
    expect(error).toMatchObject({ code: "E_SSH_AUTH", message: expect.stringContaining("nobody answered") });
    expect(nobody.questions).toHaveLength(2);
  });

  it("tries a key first, and the order is that of PreferredAuthentications", async () => {
    const byKey = recordingUi();
    await (await openTestForward(sshd, { recorded: byKey })).forward.close();
    expect(tried(byKey)).toEqual([["publickey", true]]);
    const passwordFirst = recordingUi({ passphrases: ["wrong"] });
    const settings = await settingsOf(sshd, [...methods("password", "publickey"), "NumberOfPasswordPrompts=1"]);
    await (await openTestForward(sshd, { recorded: passwordFirst, settings })).forward.close();
    expect(tried(passwordFirst)).toEqual([
      ["password", false],
      ["publickey", true],
    ]);
  });

  it("wants a key and then a password where AuthenticationMethods says so", async () => {
    const both = await startSshd({
      within: stage.within,
      config: [...stage.config, "AuthenticationMethods publickey,keyboard-interactive"],
    });
    try {
      const ui = recordingUi({ passphrases: [PASSWORD] });
      await (await openTestForward(both, { recorded: ui })).forward.close();
      expect(tried(ui)).toEqual([
        ["publickey", true],
        ["keyboard-interactive", true],
      ]);
    } finally {
      await both.dispose();
    }
  });
});

describe("a server that asks what it likes", () => {
  let sshd: Sshd;
  let server: InstanceType<typeof ssh2.Server>;
  let connections: Connection[] = [];
  beforeAll(async () => {
    sshd = await startSshd();
  });
  afterAll(() => sshd.dispose());
  afterEach(async () => {
    for (const connection of connections) connection.end();
    connections = [];
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });

  /** Serves log-ins with sshd's host key, and answers the settings that lead there. */
  const serve = async (authentication: (context: AuthContext) => void, options: readonly string[] = []): Promise<SshSettings> => {
    server = new ssh2.Server({ hostKeys: [readFileSync(join(sshd.dir, "host_ed25519"))] }, (connection) => {
      connections.push(connection);
      connection.on("error", () => {});
      connection.on("authentication", authentication);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const settings = await settingsOf(sshd, ["HostKeyAlias=peer", ...methods("keyboard-interactive", "password"), ...options]);
    return { ...settings, port, hostKeyAlias: `[127.0.0.1]:${sshd.port}`, connectTimeoutMs: 5_000 };
  };
  const signal = () => new AbortController().signal;

  it("gets the answers of several rounds, and a prompt with echo is one", async () => {
    const got: string[][] = [];
    const settings = await serve((context) => {
      if (context.method !== "keyboard-interactive") return context.reject(["keyboard-interactive"]);
      const keyboard = context as KeyboardAuthContext;
      keyboard.prompt(
        [
          { prompt: "Name: ", echo: true },
          { prompt: "Code: ", echo: false },
        ],
        "Two factors",
        "First line\nsecond line",
        (first) => {
          got.push(first);
          keyboard.prompt([{ prompt: "And the next code: ", echo: false }], (second) => {
            got.push(second);
            keyboard.accept();
          });
        },
      );
    });
    const ui = recordingUi({ passphrases: ["me", "über", "42"] });
    const transport = await connectSsh2({ settings, ui, signal: signal() });
    await transport.end();
    expect(got).toEqual([["me", "über"], ["42"]]);
    const who = `(${sshd.user}@127.0.0.1)`;
    expect(ui.questions).toEqual([
      { lines: [`${who} Two factors`, `${who} First line`, `${who} second line`, `${who} Name: `], echo: true },
      { lines: [`${who} Code: `], echo: false },
      { lines: [`${who} And the next code: `], echo: false },
    ]);
  });

  it("cannot write to the terminal, nor leave out who asks", async () => {
    const settings = await serve((context) => {
      if (context.method !== "keyboard-interactive") return context.reject(["keyboard-interactive"]);
      const keyboard = context as KeyboardAuthContext;
      keyboard.prompt([{ prompt: "\x1b[2J\r\nPIN of your token: ", echo: false }], "\x1b]0;x\x07", "", () => keyboard.accept());
    });
    const ui = recordingUi({ passphrases: ["no"] });
    await (await connectSsh2({ settings, ui, signal: signal() })).end();
    const who = `(${sshd.user}@127.0.0.1)`;
    expect(ui.questions).toEqual([{ lines: [`${who} \\x1b]0;x\\x07`, `${who} \\x1b[2J`, `${who} PIN of your token: `], echo: false }]);
  });

  it("is left when it asks without end", async () => {
    const settings = await serve((context) => {
      if (context.method !== "keyboard-interactive") return context.reject(["keyboard-interactive"]);
      const keyboard = context as KeyboardAuthContext;
      const again = () => keyboard.prompt([{ prompt: "more: ", echo: true }], again);
      again();
    });
    const ui = recordingUi({ passphrases: Array.from({ length: 100 }, () => "x") });
    const error = await rejection(connectSsh2({ settings, ui, signal: signal() }));
    expect(error).toMatchObject({ code: "E_SSH_AUTH", message: expect.stringContaining("more than 30 questions") });
    expect(ui.questions).toHaveLength(30);
  });

  it("is left when its rounds hold no question and have no end", async () => {
    const settings = await serve((context) => {
      if (context.method !== "keyboard-interactive") return context.reject(["keyboard-interactive"]);
      const keyboard = context as KeyboardAuthContext;
      const again = () => void setImmediate(() => keyboard.prompt([], again));
      again();
    });
    const ui = recordingUi();
    const error = await rejection(connectSsh2({ settings: { ...settings, connectTimeoutMs: 300 }, ui, signal: signal() }));
    expect(error).toMatchObject({ code: "E_SSH", message: expect.stringContaining("no answer") });
  });

  it("has a question open when it is interrupted: E_INTERRUPTED", async () => {
    const settings = await serve((context) => {
      if (context.method !== "keyboard-interactive") return context.reject(["keyboard-interactive"]);
      (context as KeyboardAuthContext).prompt([{ prompt: "code: ", echo: false }], () => {});
    });
    const abort = new AbortController();
    const ui: RecordedUi = {
      ...recordingUi(),
      askLogin: async () => {
        abort.abort();
        return null;
      },
    };
    expect((await rejection(connectSsh2({ settings, ui, signal: abort.signal }))).code).toBe("E_INTERRUPTED");
  });

  it("that wants a new password is left with a word about it", async () => {
    const settings = await serve((context) => {
      if (context.method !== "password") return context.reject(["password"]);
      context.requestChange("too old", () => {});
    });
    const ui = recordingUi({ passphrases: ["old"] });
    const error = await rejection(connectSsh2({ settings, ui, signal: signal() }));
    expect(error).toMatchObject({ code: "E_SSH_AUTH", message: expect.stringContaining("expired") });
  });
});
