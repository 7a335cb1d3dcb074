/*
 * `--hosts N`: several processes with one module behind one agent. What it must keep: one question for the PIN, one try for a wrong one
 * however many processes there are, and a crash that costs what one process would have cost.
 */
import { createHash, createVerify } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { TokenfwdError } from "../../src/base/errors.js";
import { connectClient, type TokenfwdClient } from "../../src/bastion/client/index.js";
import { CKM } from "../../src/cryptoki/mechanisms.js";
import { createFakePinentry, type FakePinentry } from "../support/fake-pinentry.js";
import { childrenOf } from "../support/processes.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type AgentProcessOptions, type ServerProcess, startAgent } from "./agent-process.js";
import { runCli } from "./cli-process.js";
import { countInMemory } from "./process-memory.js";

// Never whole in this source, so that a process that had read it would not be taken for one that knows the PIN.
const PIN = ["canary", "52e19d07"].join("-");
const FINAL_TRY = "flags 20000";
const DATA = Buffer.from("what is signed");

let dir: string;
let token: SoftHsm;
let shim: ShimModule;
let pinentry: FakePinentry;
let agent: ServerProcess;
let clients: TokenfwdClient[] = [];
let files = 0;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "tfwd-hosts-"));
  token = await createSoftHsm({ pin: PIN, objects: "rsa", certificates: false });
  return async () => {
    await token.dispose();
    rmSync(dir, { recursive: true, force: true });
  };
});
beforeEach(async () => {
  shim = await createShimModule(token.modulePath);
});
afterEach(async () => {
  for (const client of clients) await client.close();
  clients = [];
  await agent?.dispose();
  await shim.dispose();
});

async function serve(hosts: number, more: Partial<AgentProcessOptions> = {}): Promise<void> {
  pinentry = await createFakePinentry(dir, `pinentry-${++files}`, { GETPIN: `D ${PIN}\\nOK\\n`, CONFIRM: "OK\\n" });
  const env = { ...token.env, ...shim.env, TOKENFWD_PINENTRY: pinentry.program };
  const args = ["--hosts", String(hosts), ...(more.args ?? [])];
  agent = await startAgent({ token: { ...token, modulePath: shim.modulePath, env }, pin: "ask", ...more, args });
}

/** So many programs, each of which has been given its process. */
async function programs(count: number): Promise<TokenfwdClient[]> {
  while (clients.length < count) clients.push(await connectClient({ socket: agent.socket }));
  return clients;
}

/** `signed` when the signature verifies, else the code of the error. */
async function sign(client: TokenfwdClient | undefined): Promise<string> {
  const key = (await client?.keys())?.find((one) => one.id.equals(Buffer.from([1])));
  const request = {
    key: {
      uri: null,
      spki: createHash("sha256")
        .update(key?.spki ?? "")
        .digest(),
    },
    mechanism: CKM.CKM_SHA256_RSA_PKCS,
    parameter: null,
    data: DATA,
    isDigest: false,
    purpose: "test",
    expect: null,
  };
  try {
    const { signature = Buffer.alloc(0) } = (await client?.signer.sign(request)) ?? {};
    const publicKey = readFileSync(token.keys.rsa?.publicKeyFile ?? "");
    return createVerify("sha256").update(DATA).verify(publicKey, signature) ? "signed" : "a signature that does not verify";
  } catch (thrown) {
    return thrown instanceof TokenfwdError ? thrown.code : String(thrown);
  }
}

async function signEach(count: number): Promise<string[]> {
  const outcomes: string[] = [];
  for (const client of await programs(count)) outcomes.push(await sign(client));
  return outcomes;
}

describe("a pool of hosts", { timeout: 60_000 }, () => {
  test("asks for the PIN once, logs each process in once, and two programs sign at the same time", async () => {
    await serve(2);
    expect(childrenOf(agent.pid)).toHaveLength(2);
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    expect([await pinentry.asked(), await shim.logins()]).toEqual([1, 2]);
    // Each waits in the module until the other is in it as well: with one process the second would never come.
    const [one, other] = await programs(2);
    await shim.control("C_Sign meet 2");
    expect(await Promise.all([sign(one), sign(other)])).toEqual(["signed", "signed"]);
  });

  test("programs that begin at once are spread over the processes, asked for once, and none logs in twice", async () => {
    await serve(3);
    expect(await Promise.all((await programs(9)).map(sign))).toEqual(Array.from({ length: 9 }, () => "signed"));
    expect([await pinentry.asked(), await shim.logins()]).toEqual([1, 3]);
  });

  test("a wrong PIN in a file costs one try, however many processes there are", async () => {
    await shim.control("tries 3");
    await serve(3, { token: { ...token, pin: "wrong", modulePath: shim.modulePath, env: { ...token.env, ...shim.env } }, pin: "file" });
    expect(await signEach(4)).toEqual(["E_PIN_WRONG", "E_PIN_WRONG", "E_PIN_WRONG", "E_PIN_WRONG"]);
    expect([await shim.logins(), await shim.triesLeft()]).toEqual([1, 2]);
  });

  test("a PIN from a file is lent as well", async () => {
    await serve(2, { token: { ...token, modulePath: shim.modulePath, env: { ...token.env, ...shim.env } }, pin: "file" });
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    expect(await shim.logins()).toBe(2);
  });

  test("a PIN that the second process sees refused is tried in no third", async () => {
    await serve(3);
    expect(await signEach(1)).toEqual(["signed"]);
    await shim.control("C_Login rv a0");
    expect((await signEach(3)).slice(1)).toEqual(["E_PIN_WRONG", expect.stringMatching(/^E_/)]);
    expect(await shim.logins()).toBe(2);
    // The first goes on, and nobody was asked for what nobody here can mend.
    expect([await sign(clients[0]), await pinentry.asked()]).toEqual(["signed", 1]);
  });

  test("the last try is not spent by a process that cannot ask", async () => {
    await serve(2);
    expect(await signEach(1)).toEqual(["signed"]);
    await shim.control(FINAL_TRY);
    expect((await signEach(2))[1]).toMatch(/^E_/);
    expect(await shim.logins()).toBe(1);
    expect(await sign(clients[0])).toBe("signed");
    await shim.control();
    // A no is remembered for the one who got it.
    expect((await signEach(4))[3]).toBe("signed");
  });

  test("the crash of another process than the first costs its own programs' calls and no question", async () => {
    await serve(2);
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    const [first = 0, second = 0] = childrenOf(agent.pid);
    process.kill(second, "SIGKILL");
    await agent.waitFor(/the module's process was ended by SIGKILL/);
    expect(await sign(clients[0])).toBe("signed");
    expect(await sign(clients[1])).toBe("signed");
    expect(childrenOf(agent.pid)).toContain(first);
    expect([await pinentry.asked(), await shim.logins()]).toEqual([1, 3]);
  });

  test("the crash of the first, which had the PIN, ends all log-ins made with it: it is asked for again, once", async () => {
    await serve(2);
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    const before = childrenOf(agent.pid);
    process.kill(before[0] ?? 0, "SIGKILL");
    await agent.waitFor(/the process that held the PIN is gone/);
    await vi.waitFor(() => expect(childrenOf(agent.pid).filter((pid) => !before.includes(pid))).toHaveLength(2), { timeout: 15_000 });
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    expect([await pinentry.asked(), await shim.logins()]).toEqual([2, 4]);
  });

  test("a token that is pulled takes the PIN with it, and is asked for once when it is back", async () => {
    await serve(2);
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    await shim.control("token out");
    await vi.waitFor(async () => expect((await signEach(2)).join()).not.toContain("signed"), { timeout: 15_000, interval: 500 });
    await shim.control();
    await vi.waitFor(async () => expect(await signEach(2)).toEqual(["signed", "signed"]), { timeout: 20_000, interval: 1_000 });
    expect(await pinentry.asked()).toBe(2);
  });

  test("a hold releases each process by itself, and the next signature there takes no question", async () => {
    await serve(2, { args: ["--hold", "0"] });
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    await vi.waitFor(
      async () => {
        expect(await signEach(2)).toEqual(["signed", "signed"]);
        expect(await shim.logins()).toBeGreaterThan(3);
      },
      { timeout: 20_000, interval: 1_500 },
    );
    expect(await pinentry.asked()).toBe(1);
  });

  test("the PIN is not in the agent, which made the pipe between the processes", async () => {
    await serve(2);
    expect(await signEach(2)).toEqual(["signed", "signed"]);
    const [first = 0] = childrenOf(agent.pid);
    const found = (pid: number) => countInMemory(pid, Buffer.from(PIN));
    expect(found(first)).toBeGreaterThan(0);
    expect(found(agent.pid)).toBe(0);
  });
});

describe("--hosts on the command line", () => {
  test("a module that refuses a second process is named as one, and nothing is left", { timeout: 60_000 }, async () => {
    await shim.control("C_Initialize alone x");
    const words = ["agent", "run", "--module", shim.modulePath, "--socket", join(dir, "s"), "--hosts", "2"];
    const done = await runCli(words, { env: { ...token.env, ...shim.env } });
    expect([done.code, done.stderr]).toEqual([21, expect.stringMatching(/second process.*\n.*leave --hosts out/)]);
  });

  test.each([
    [["--hosts", "2", "--pin-source", "client"], /--hosts and --pin-source client exclude one another/],
    [["--hosts", "2", "--policy", "full"], /--hosts is for signing/],
    [["--hosts", "9"], /--hosts takes a number from 1 to 8/],
    [["--hosts", "0"], /--hosts takes a number from 1 to 8/],
  ])("%j is a usage error", async (words, message) => {
    const done = await runCli(["agent", "run", "--module", token.modulePath, "--socket", join(dir, "s"), ...words], { env: token.env });
    expect([done.code, done.stderr]).toEqual([2, expect.stringMatching(message)]);
  });
});
