/* The small parts of the command line: options, key choice, raw argv, use lines, events, lifetime. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CommanderError } from "commander";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { TokenfwdError } from "../../../src/base/errors.js";
import { fromCommander } from "../../../src/cli/command-process.js";
import { createEventStream } from "../../../src/cli/event-stream.js";
import { chooseKey } from "../../../src/cli/key-choice.js";
import { createLifetime, signalStatus } from "../../../src/cli/lifetime.js";
import { checkTokenOptions, parsePinSource } from "../../../src/cli/options.js";
import { splitArgv } from "../../../src/cli/raw-argv.js";
import type { Terminal } from "../../../src/cli/terminal.js";
import { createUi } from "../../../src/cli/ui.js";
import { createUseLines } from "../../../src/cli/use-lines.js";

const never = new AbortController().signal;

/** A stream that remembers. */
function sink(): { text: string; write(chunk: string): boolean } {
  return {
    text: "",
    write(chunk) {
      this.text += chunk;
      return true;
    },
  };
}

/** The error that `run` throws. */
function thrown(run: () => unknown): TokenfwdError {
  try {
    run();
  } catch (error) {
    if (error instanceof TokenfwdError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("options", () => {
  test("the defaults are ask, sign, no key named and no raw RSA", () => {
    expect(checkTokenOptions({ module: "/m.so" })).toEqual({
      module: "/m.so",
      token: null,
      key: null,
      pinSource: { kind: "ask" },
      profile: "sign",
      allowRawRsa: false,
      holdMs: 60_000,
      hosts: 1,
    });
  });

  test("a module that is not named is to be found, and an empty name is a usage error", () => {
    expect(checkTokenOptions({}).module).toBeNull();
    expect(thrown(() => checkTokenOptions({ module: "" }))).toMatchObject({ code: "E_USAGE", exitCode: 2 });
  });

  test.each([
    ["--key", { key: "pkcs11:id=%01?pin-value=31415926" }],
    ["--key", { key: "pkcs11:id=%01?pin-source=file:/31415926" }],
    ["--token", { token: "pkcs11:token=a?pin-value=31415926" }],
    ["--token", { token: "a?pin-value=31415926" }],
    ["--pin-source", { pinSource: "31415926" }],
    ["--pin-source", { pinSource: "value:31415926" }],
    ["--key", { key: "31415926" }],
  ])("a PIN in %s is refused and not repeated", (_, raw) => {
    const error = thrown(() => checkTokenOptions({ module: "/m.so", ...raw }));
    expect(error.code).toBe("E_USAGE");
    expect(`${error.message} ${error.hint} ${error.stack}`).not.toContain("31415926");
  });

  test.each(["fd:0", "fd:2", "fd:x", "fd:-1", "file:", "", "Ask"])("the PIN source %j is refused", (text) => {
    expect(thrown(() => parsePinSource(text)).code).toBe("E_USAGE");
  });

  test("file and fd are PIN sources", () => {
    expect(parsePinSource("file:/a:b")).toEqual({ kind: "file", path: "/a:b" });
    expect(parsePinSource("fd:3")).toEqual({ kind: "fd", fd: 3 });
  });

  test("an unknown policy is refused", () => {
    expect(thrown(() => checkTokenOptions({ module: "/m.so", policy: "admin" })).code).toBe("E_USAGE");
  });
});

describe("key choice", () => {
  const noTerminal: Terminal = { available: false, ask: async () => null, askSecret: async () => null };
  const answering = (answer: string | null): Terminal & { asked: (string | readonly string[])[] } => {
    const asked: (string | readonly string[])[] = [];
    return {
      asked,
      available: true,
      async ask(question) {
        asked.push(question);
        return answer;
      },
      askSecret: async () => null,
    };
  };
  const one = { uri: "pkcs11:token=a;id=%01;type=private", label: "one", slot: 1n };
  const two = { uri: "pkcs11:token=a;id=%02;type=private", label: "two", slot: 1n };

  test("what was asked for is taken as it is", async () => {
    expect((await chooseKey("all", { certificates: [one, two], publicKeys: [] }, noTerminal, never)).key).toBe("all");
  });
  test("one certificate chooses its key, however many public keys there are", async () => {
    expect((await chooseKey(null, { certificates: [two], publicKeys: [one, two] }, noTerminal, never)).key).toBe(two.uri);
  });
  test("two certificates of one key are one choice", async () => {
    expect((await chooseKey(null, { certificates: [one, { ...one, label: "renewed" }], publicKeys: [] }, noTerminal, never)).key).toBe(
      one.uri,
    );
  });
  test("without a certificate a single public key chooses its key", async () => {
    expect((await chooseKey(null, { certificates: [], publicKeys: [one] }, noTerminal, never)).key).toBe(one.uri);
  });
  test("nothing public at all is no key and a warning", async () => {
    const choice = await chooseKey(null, { certificates: [], publicKeys: [] }, noTerminal, never);
    expect(choice.key).toBeNull();
    expect(choice.warning).toContain("--key");
  });
  test("several without a terminal end in E_KEY_CHOICE with every URI", async () => {
    const error = await chooseKey(null, { certificates: [one, two], publicKeys: [] }, noTerminal, never).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "E_KEY_CHOICE", exitCode: 20 });
    expect((error as TokenfwdError).hint).toContain(one.uri);
    expect((error as TokenfwdError).hint).toContain(two.uri);
  });
  test.each([
    ["several-keys", 1n],
    ["several-tokens", 2n],
  ])("the error says whether it is %s", async (reason, slot) => {
    const found = { certificates: [one, { ...two, slot }], publicKeys: [] };
    await expect(chooseKey(null, found, noTerminal, never)).rejects.toMatchObject({ reason });
  });
  test("on a terminal the list is numbered and the number chooses", async () => {
    const terminal = answering(" 2 ");
    expect((await chooseKey(null, { certificates: [one, two], publicKeys: [] }, terminal, never)).key).toBe(two.uri);
    expect(terminal.asked.flat().join("\n")).toMatch(/1 {2}one[\s\S]*2 {2}two/);
  });
  test.each(["", "0", "3", "1x", null])("on a terminal the answer %j chooses nothing", async (answer) => {
    await expect(chooseKey(null, { certificates: [one, two], publicKeys: [] }, answering(answer), never)).rejects.toMatchObject({
      code: "E_KEY_CHOICE",
    });
  });
});

describe("the command after --", () => {
  test("is split at the first -- and keeps later ones", () => {
    expect(splitArgv(["connect", "b", "--", "sh", "--", "-c"])).toEqual({ own: ["connect", "b"], command: ["sh", "--", "-c"] });
    expect(splitArgv(["connect", "b"])).toEqual({ own: ["connect", "b"], command: null });
  });

  test("keeps bytes that are not UTF-8, in a real process", () => {
    const script = fileURLToPath(new URL("../../support/print-argv.mjs", import.meta.url));
    const bytes = ["ff", "c3a9", "", "20c328", "efbfbd"];
    const python = `import os,sys; os.execvp(sys.argv[1], [os.fsencode(a) for a in sys.argv[1:3]] + [b"connect", b"b", b"--"] + [bytes.fromhex(h) for h in sys.argv[3:]])`;
    const run = spawnSync("python3", ["-c", python, process.execPath, script, ...bytes], { encoding: "utf8" });
    expect(run.stderr).toBe("");
    expect(JSON.parse(run.stdout)).toEqual(bytes);
  });

  test("is refused where the bytes are lost for good", () => {
    expect(thrown(() => splitArgv(["--", "a\u{fffd}"], () => null)).code).toBe("E_USAGE");
    expect(thrown(() => splitArgv(["--", "a\u{fffd}"], () => [Buffer.from("b")])).code).toBe("E_USAGE");
  });
});

describe("use lines", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test("ten a second for each client, and the rest in one line", () => {
    const lines: string[] = [];
    const uses = createUseLines((text) => lines.push(text));
    for (let i = 0; i < 25; i++) uses.add("c1", () => `use ${i}`);
    uses.add("c2", () => "another's");
    expect(lines).toHaveLength(11);
    vi.advanceTimersByTime(1000);
    expect(lines.at(-1)).toBe("and 15 more by c1 within a second");
    uses.add("c1", () => "later");
    expect(lines.at(-1)).toBe("later");
  });

  test("what is still counted is said at the end", () => {
    const lines: string[] = [];
    const uses = createUseLines((text) => lines.push(text));
    for (let i = 0; i < 12; i++) uses.add("c1", () => "x");
    uses.flush();
    expect(lines).toHaveLength(11);
    expect(lines.at(-1)).toContain("2 more");
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("events and lines", () => {
  test("an event is one line with v, ts in UTC with milliseconds, and event first", () => {
    const out = sink();
    const events = createEventStream(out, () => new Date(0));
    events.emit("refused", { client: "c1", call: "C_Sign", rv: 84, why: "no\u001b[31m\nway", slot: 3n, bytes: Buffer.from("secret") });
    const { text } = out;
    expect(text.endsWith("\n")).toBe(true);
    expect(text.startsWith('{"v":1,"ts":"1970-01-01T00:00:00.000Z","event":"refused",')).toBe(true);
    expect(text.trim().split("\n")).toHaveLength(1);
    expect(JSON.parse(text)).toMatchObject({ why: "no\\x1b[31m\\x0away", slot: "3" });
    expect(text).not.toContain("secret");
  });

  test("an error is a line with its code and status, and its hint", () => {
    const out = sink();
    createUi(out).error(new TokenfwdError("E_SSH", "cannot reach b\u001b[2J", { hint: "try ping" }));
    expect(out.text).toBe("tokenfwd: cannot reach b\\x1b[2J [E_SSH 10]\nhint: try ping\n");
  });

  test("a raw terminal gets a carriage return before each line feed", () => {
    const out = sink();
    createUi(out, () => true).line("x");
    expect(out.text).toBe("tokenfwd: x\r\n");
  });

  test("commander's complaint about an unknown option does not repeat its value", () => {
    const error = fromCommander(new CommanderError(1, "commander.unknownOption", "error: unknown option '--pin=31415926'"));
    expect(error).toMatchObject({ code: "E_USAGE", message: "unknown option '--pin=...'" });
  });
});

describe("lifetime", () => {
  test("closes in reverse order, also when one of them fails", async () => {
    const lifetime = createLifetime(() => () => {});
    const order: number[] = [];
    lifetime.defer(() => void order.push(1));
    lifetime.defer(() => Promise.reject(new Error("no")));
    lifetime.defer(() => void order.push(3));
    await lifetime.close();
    await lifetime.close();
    expect(order).toEqual([3, 1]);
  });

  test("what arrives after an interrupt is still closed", async () => {
    const lifetime = createLifetime(() => () => {});
    let deliver: (value: string) => void = () => {};
    const discarded: string[] = [];
    const waiting = lifetime.wait(
      new Promise<string>((resolve) => {
        deliver = resolve;
      }),
      (late) => void discarded.push(late),
    );
    lifetime.stop("SIGINT");
    await expect(waiting).rejects.toMatchObject({ code: "E_INTERRUPTED" });
    deliver("late");
    await lifetime.close();
    expect(discarded).toEqual(["late"]);
    expect(lifetime.stoppedBy).toBe("SIGINT");
  });

  test("what arrived in time is not discarded", async () => {
    const lifetime = createLifetime(() => () => {});
    const discarded: string[] = [];
    expect(await lifetime.wait(Promise.resolve("in time"), (late) => void discarded.push(late))).toBe("in time");
    lifetime.stop("SIGTERM");
    await lifetime.close();
    expect(discarded).toEqual([]);
  });

  test("a signal is 128 and its number, with or without SIG", () => {
    expect([signalStatus("SIGTERM"), signalStatus("KILL"), signalStatus("SIGNONE")]).toEqual([143, 137, 255]);
  });
});
