/* The order of a connect, its errors and its statuses, with stand-ins for the parts that have tests of their own. */
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import type { AgentEvents, AgentPort } from "../../../../src/agent/agent.js";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { createEmitter } from "../../../../src/base/events.js";
import { silentLog } from "../../../../src/base/log.js";
import { checkConnectOptions } from "../../../../src/cli/connect/command.js";
import { type ConnectOptions, type ConnectParts, connect } from "../../../../src/cli/connect/connect.js";
import { EVENT_NAMES } from "../../../../src/cli/event-stream.js";
import { createLifetime } from "../../../../src/cli/lifetime.js";
import type { SshSettings } from "../../../../src/forward/ssh-settings.js";
import type { Bastion, BastionOptions, Forward } from "../../../../src/forward/types.js";
import type { TokenHost, UnlockResult } from "../../../../src/token/host/host.js";

interface World {
  readonly log: string[];
  readonly events: { event: string; data: Readonly<Record<string, unknown>> }[];
  readonly lines: string[];
  readonly agentEvents: ReturnType<typeof createEmitter<AgentEvents>>;
  readonly lifetime: ReturnType<typeof createLifetime>;
  readonly stdin: PassThrough & { isTTY?: boolean };
  lose(error: TokenfwdError): void;
  run(options?: Partial<ConnectOptions>, parts?: Partial<ConnectParts>): Promise<number>;
}

const KEY = "pkcs11:id=%01;type=private";
const OPTIONS: ConnectOptions = {
  ...checkConnectOptions("b", { module: "/m.so", key: KEY, sshOption: [] }, null),
};
const READY = {
  user: "ops",
  host: "bastion.example",
  port: 22,
  hostKey: "SHA256:abc",
  pty: true,
  verified: "rpc",
  remoteSocket: "/run/x",
  address: "unix:path=/run/x",
  wellKnown: "ours",
  tools: null,
  rttMs: 1,
  warnings: [],
} as const;

const notAskedFor = async (): Promise<never> => {
  throw new Error("not asked for");
};
/** What only --choria asks of a bastion and of a forward. */
const FILES: Bastion["files"] = { login: notAskedFor, present: notAskedFor, read: notAskedFor };
const UNASKED = { listenLoopback: notAskedFor, dial: notAskedFor, keep: notAskedFor };

/** Stand-ins that write down what is done to them. */
function world(
  given: {
    unlock?: UnlockResult;
    canAsk?: boolean;
    ready?: Partial<Forward["ready"]>;
    runs?: () => Promise<{ code: number | null; signal: string | null }>;
  } = {},
): World {
  const log: string[] = [];
  const events: World["events"] = [];
  const lines: string[] = [];
  const agentEvents = createEmitter<AgentEvents>();
  const lifetime = createLifetime(() => () => {});
  const stdin: World["stdin"] = new PassThrough();
  let lose: (error: TokenfwdError) => void = () => {};
  const lost = new Promise<TokenfwdError>((resolve) => {
    lose = resolve;
  });
  const host = { canAsk: async () => given.canAsk ?? true, close: async () => void log.push("host closed") } as unknown as TokenHost;
  const inspection = { tokens: [{ slot: 1n, uri: "pkcs11:token=t", label: "t", serial: "1" }], certificates: [], publicKeys: [] };
  const agent = {
    events: agentEvents,
    unlock: async () => {
      log.push("unlock");
      return given.unlock ?? { rv: 0, asked: true };
    },
    slots: async () => [1n],
    close: async () => void log.push("agent closed"),
  } as unknown as AgentPort;
  const forward: Forward = {
    ...UNASKED,
    ready: { ...READY, ...given.ready },
    run: async () => {
      log.push("run");
      return given.runs === undefined ? { code: 0, signal: null } : given.runs();
    },
    lost,
    close: async () => void log.push("forward closed"),
  };
  const parts: ConnectParts = {
    checkModule: (path) => path,
    resolveSshSettings: async () => {
      log.push("settings");
      return { user: "ops", host: "bastion.example", port: 22 } as unknown as SshSettings;
    },
    openModule: async () => {
      log.push("host");
      return host;
    },
    inspectToken: async () => {
      log.push("inspect");
      return inspection as unknown as Awaited<ReturnType<ConnectParts["inspectToken"]>>;
    },
    createAgent: async () => {
      log.push("agent");
      return agent;
    },
    findModule: async () => "/found.so",
    openStock: async () => {
      throw new Error("not asked for");
    },
    connectBastion: async () => {
      log.push("ssh");
      return {
        hostKey: "SHA256:abc",
        files: FILES,
        lost,
        open: async () => {
          log.push("forward");
          return forward;
        },
        close: async () => void log.push("ssh closed"),
      };
    },
    workstationId: () => "0badcafe",
    planChoria: notAskedFor,
  };
  const ui = {
    line: (text: string) => void lines.push(text),
    warning: (text: string) => void lines.push(`warning: ${text}`),
    hint: () => {},
    error: (error: TokenfwdError) => void lines.push(`${error.code} ${error.message} / ${error.hint}`),
  };
  const around = {
    stdio: { stdin, stdout: new PassThrough(), stderr: new PassThrough() },
    terminal: { available: false, ask: async () => null, askSecret: async () => null },
    createUi: () => ui,
    events: { emit: (event: string, data: Readonly<Record<string, unknown>>) => void events.push({ event, data }) },
    log: silentLog,
    lifetime,
    term: "xterm",
    onTouch: () => {},
  };
  return {
    log,
    events,
    lines,
    agentEvents,
    lifetime,
    stdin,
    lose,
    run: (options = {}, more = {}) => connect({ ...OPTIONS, ...options }, around, { ...parts, ...more }),
  };
}

/** A bastion that opens this forward. */
const bastionOf = (forward: Forward): Bastion => ({
  hostKey: READY.hostKey,
  files: FILES,
  lost: forward.lost,
  open: async () => forward,
  close: () => forward.close(),
});

/** Lets everything that can run now run. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

test("parts come up in order and go down in reverse, and a stop after ready is 0", async () => {
  const it = world();
  const status = it.run();
  await settle();
  expect(it.events.map((one) => one.event)).toEqual(["connecting", "ready"]);
  it.lifetime.stop("SIGINT");
  expect(await status).toBe(0);
  expect(it.log).toEqual([
    "settings",
    "ssh",
    "host",
    "inspect",
    "agent",
    "forward",
    "forward closed",
    "agent closed",
    "host closed",
    "ssh closed",
  ]);
  expect(it.events.slice(2)).toEqual([
    { event: "closing", data: {} },
    { event: "closed", data: { exitCode: 0 } },
  ]);
});

test("every event name that a connect emits is a pinned one", async () => {
  const it = world({ ready: { warnings: ["no terminal"] } });
  const status = it.run(
    {},
    {
      connectBastion: async (options: BastionOptions) => {
        options.ui.event("hostkey", { fingerprint: "SHA256:abc" });
        options.ui.event("warning", { text: "careful" });
        return bastionOf({
          ...UNASKED,
          ready: READY,
          run: async () => ({ code: 0, signal: null }),
          lost: new Promise(() => {}),
          close: async () => {},
        });
      },
    },
  );
  await settle();
  it.lifetime.stop("SIGINT");
  await status;
  for (const { event } of it.events) expect(EVENT_NAMES).toContain(event);
  expect(it.events).toContainEqual({ event: "forward", data: { warning: "careful" } });
  expect(it.lines).toContain("warning: careful");
});

test("a warning that was said while connecting is not said again at ready", async () => {
  const it = world();
  const status = it.run(
    {},
    {
      connectBastion: async (options: BastionOptions) => {
        options.ui.event("warning", { text: "careful" });
        const ready = { ...READY, warnings: ["careful", "and slow"] };
        const run = async () => ({ code: 0, signal: null });
        return bastionOf({ ...UNASKED, ready, run, lost: new Promise(() => {}), close: async () => {} });
      },
    },
  );
  await settle();
  it.lifetime.stop("SIGINT");
  await status;
  expect(it.lines.filter((line) => line.startsWith("warning"))).toEqual(["warning: careful", "warning: and slow"]);
});

test.each([
  [null, null, true, false],
  [null, ["true"], true, true],
  [null, ["true"], false, false],
  ["later", ["true"], true, false],
  ["now", null, true, true],
] as const)("--unlock %j with CMD %j and something to ask with: %j unlocks: %j", async (unlock, command, canAsk, unlocks) => {
  const it = world({ canAsk });
  const status = it.run({ unlock, command });
  await settle();
  it.lifetime.stop("SIGINT");
  await status;
  expect(it.log.includes("unlock")).toBe(unlocks);
  if (unlocks && command !== null) expect(it.log.indexOf("unlock")).toBeLessThan(it.log.indexOf("run"));
});

test("--unlock now with nothing to ask with fails before anything is made on the bastion", async () => {
  const it = world({ canAsk: false });
  expect(await it.run({ unlock: "now" })).toBe(30);
  expect(it.log).toEqual(["settings", "ssh", "host", "host closed", "ssh closed"]);
});

test.each([
  ["cancelled", 32, "E_PIN_CANCELLED"],
  ["timeout", 32, "E_PIN_CANCELLED"],
  ["no-source", 30, "E_PIN_SOURCE"],
  ["wrong-pin", 30, "E_PIN_WRONG"],
  ["last-try-declined", 31, "E_PIN_LOCKED"],
  ["locked", 31, "E_PIN_LOCKED"],
  [undefined, 21, "E_MODULE_FAULT"],
] as const)("an unlock that ends with %s is %i %s, with a hint, and 255 when there is a CMD", async (reason, status, code) => {
  const unlock: UnlockResult = { rv: 0xa0, asked: true, ...(reason === undefined ? {} : { reason }) };
  const plain = world({ unlock });
  expect(await plain.run({ unlock: "now" })).toBe(status);
  expect(plain.events.find((one) => one.event === "error")?.data).toMatchObject({ code, exitCode: status, hint: expect.any(String) });
  const withCommand = world({ unlock });
  expect(await withCommand.run({ unlock: "now", command: ["true"] })).toBe(255);
  expect(withCommand.log).not.toContain("run");
  expect(withCommand.log).toContain("ssh closed");
});

test("an interrupt while the module is still loading is 130, and the module is closed when it has come up", async () => {
  const it = world();
  const closed: string[] = [];
  let arrive: (host: TokenHost) => void = () => {};
  const status = it.run(
    {},
    {
      openModule: () =>
        new Promise<TokenHost>((resolve) => {
          arrive = resolve;
        }),
    },
  );
  await settle();
  it.lifetime.stop("SIGINT");
  await settle();
  arrive({ close: async () => void closed.push("late") } as unknown as TokenHost);
  expect(await status).toBe(130);
  expect(closed).toEqual(["late"]);
});

test("a connection that dies while the module comes up is E_SSH_LOST, and the late module is closed", async () => {
  const it = world();
  const closed: string[] = [];
  let arrive: (host: TokenHost) => void = () => {};
  const openModule = () =>
    new Promise<TokenHost>((resolve) => {
      arrive = resolve;
    });
  const status = it.run({}, { openModule });
  await settle();
  it.lose(new TokenfwdError("E_SSH_LOST", "the bastion went silent", { hint: "connect again" }));
  await settle();
  arrive({ canAsk: async () => true, close: async () => void closed.push("late") } as unknown as TokenHost);
  expect(await status).toBe(10);
  expect(closed).toEqual(["late"]);
  expect(it.log).not.toContain("forward");
  expect(it.log).toContain("ssh closed");
});

test("a module that is not there is told before SSH is dialled", async () => {
  const it = world();
  const checkModule = () => {
    throw new TokenfwdError("E_MODULE", "no such file");
  };
  expect(await it.run({}, { checkModule })).toBe(20);
  expect(it.log).toEqual([]);
});

test("a connection that dies is lost and 10, and everything else is still closed", async () => {
  const it = world();
  const status = it.run();
  await settle();
  it.lose(new TokenfwdError("E_SSH_LOST", "the bastion went silent", { hint: "connect again" }));
  expect(await status).toBe(10);
  expect(it.events.map((one) => one.event)).toEqual(["connecting", "ready", "lost", "error", "closing", "closed"]);
  expect(it.events.find((one) => one.event === "lost")?.data).toEqual({ code: "E_SSH_LOST", message: "the bastion went silent" });
  expect(it.log.slice(-4)).toEqual(["forward closed", "agent closed", "host closed", "ssh closed"]);
});

test.each([
  [{ code: 3, signal: null }, 3],
  [{ code: null, signal: "SIGKILL" }, 137],
  [{ code: null, signal: "TERM" }, 143],
  [{ code: null, signal: null }, 255],
])("a CMD that ends with %j gives %i", async (ended, status) => {
  expect(await world({ runs: async () => ended }).run({ command: ["x"], unlock: "later" })).toBe(status);
});

test("with --choria the token is unlocked before the broker is spoken to, and that before ready", async () => {
  const it = world();
  const choria = { configFile: null, caPem: null, brokers: [], maxTtlSeconds: 300 };
  const serving = {
    caller: "choria=ops",
    brokers: "b:4222",
    directory: "/run/cmd",
    discoveryTimeout: null,
    gone: new Promise<never>(() => {}),
  };
  const status = it.run(
    { choria, unlock: "later", command: null },
    {
      planChoria: async () => {
        it.log.push("plan");
        return {
          open: async () => {
            it.log.push("open");
            return serving;
          },
        };
      },
    },
  );
  await settle();
  expect(it.log).toEqual(["settings", "ssh", "plan", "host", "inspect", "agent", "forward", "unlock", "open"]);
  expect(it.events.at(-1)?.data["choria"]).toEqual({ caller: "choria=ops", brokers: "b:4222", directory: "/run/cmd" });
  expect(it.lines.join("\n")).toContain("export PATH='/run/cmd':\"$PATH\"");
  it.lifetime.stop("SIGINT");
  expect(await status).toBe(0);
});

test("what choria needs and has lost for good ends the connect, and CMD with it", async () => {
  const it = world({ runs: () => new Promise(() => {}) });
  const gone = Promise.resolve(new TokenfwdError("E_CHORIA_BROKER", "it stays away"));
  const serving = { caller: "choria=ops", brokers: "b:4222", directory: "/run/cmd", discoveryTimeout: 9, gone };
  const options = { choria: { configFile: null, caPem: null, brokers: [], maxTtlSeconds: 300 }, command: ["choria", "ping"] };
  expect(await it.run(options, { planChoria: async () => ({ open: async () => serving }) })).toBe(255);
  expect(it.events.find(({ event }) => event === "error")?.data["code"]).toBe("E_CHORIA_BROKER");
  expect(it.lines.join("\n")).toContain("answers are waited for 9 s");
});

test("local stdin is not read while a PIN is asked for, and nothing of it is lost", async () => {
  let end: () => void = () => {};
  const it = world({
    runs: () =>
      new Promise((resolve) => {
        end = () => resolve({ code: 0, signal: null });
      }),
  });
  it.stdin.isTTY = true;
  const got: string[] = [];
  const forward: Forward = {
    ...UNASKED,
    ready: READY,
    run: (_, io) => {
      io.stdin.on("data", (chunk: Buffer) => void got.push(chunk.toString()));
      return new Promise((resolve) => {
        end = () => resolve({ code: 0, signal: null });
      });
    },
    lost: new Promise(() => {}),
    close: async () => {},
  };
  const status = it.run({ command: ["x"], unlock: "later", pty: "forbid" }, { connectBastion: async () => bastionOf(forward) });
  await settle();
  it.stdin.write("before ");
  await settle();
  it.agentEvents.emit("prompt", { kind: "pin", state: "open", token: "t", triesLeft: 3 });
  it.stdin.write("during ");
  await settle();
  await settle();
  expect(got.join("")).toBe("before ");
  expect(it.events.at(-1)).toEqual({ event: "prompt", data: { kind: "pin", token: "t", triesLeft: 3 } });
  it.agentEvents.emit("prompt", { kind: "pin", state: "closed", token: "t", triesLeft: null });
  await settle();
  expect(got.join("")).toBe("before during ");
  expect(it.events.filter((one) => one.event === "prompt")).toHaveLength(1);
  end();
  expect(await status).toBe(0);
});

test.each([
  [{ policy: "full" }, null, "E_FULL_OVER_FORWARD"],
  [{ unlock: "soon" }, null, "E_USAGE"],
  [{ port: "0" }, null, "E_USAGE"],
  [{ port: "22x" }, null, "E_USAGE"],
  [{ sshOption: ["-oProxyCommand"] }, null, "E_USAGE"],
  [{ config: "/nowhere/config" }, null, "E_USAGE"],
  [{ tty: true }, null, "E_USAGE"],
  [{}, [], "E_USAGE"],
])("the options %j with CMD %j are refused with %s", (raw, command, code) => {
  expect(() => checkConnectOptions("b", { module: "/m.so", sshOption: [], ...raw }, command)).toThrow(expect.objectContaining({ code }));
});

test("a destination that looks like an option is refused", () => {
  expect(() => checkConnectOptions("-oProxyCommand=x", { module: "/m.so", sshOption: [] }, null)).toThrow(
    expect.objectContaining({ code: "E_USAGE" }),
  );
});

test("after ready a person reads which key, what it may do, until when, and who else can use it", async () => {
  const it = world({ ready: { wellKnown: "foreign", verified: "no", verifiedWhy: "direct-streamlocal is refused" } });
  const status = it.run();
  await settle();
  it.lifetime.stop("SIGTERM");
  await status;
  const text = it.lines.join("\n");
  expect(text).toContain(`key: ${KEY}`);
  expect(text).toContain("nothing on the token can be changed");
  expect(text).toContain("not verified: direct-streamlocal is refused");
  expect(text).toContain("export P11_KIT_SERVER_ADDRESS='unix:path=/run/x'");
  expect(text).toContain("until this command ends (Ctrl-C), ops and root on bastion.example can use it as you can");
});

test("a stock server that ends while the socket is proved is the error, and not what it did to the proof", async () => {
  const it = world();
  let end: (error: TokenfwdError) => void = () => {};
  const gone = new Promise<TokenfwdError>((resolve) => {
    end = resolve;
  });
  const stock = { tokens: [], offerVersion: 2, slots: async () => [], attach: () => ({ onFirstFrameOptions() {} }), gone } as const;
  const status = it.run(
    { stock: true },
    {
      openStock: async () => ({ ...stock, close: async () => void it.log.push("stock closed") }),
      connectBastion: async () => ({
        hostKey: READY.hostKey,
        files: FILES,
        lost: new Promise(() => {}),
        open: () => {
          end(new TokenfwdError("E_STOCK", "it ended"));
          return new Promise(() => {});
        },
        close: async () => void it.log.push("ssh closed"),
      }),
    },
  );
  expect(await status).toBe(40);
  expect(it.events.find(({ event }) => event === "error")?.data["code"]).toBe("E_STOCK");
  expect(it.events.findIndex(({ data }) => String(data["warning"]).startsWith("--stock: a PIN is typed on the bastion"))).toBe(1);
  expect(it.log.slice(-2)).toEqual(["stock closed", "ssh closed"]);
});
