/*
 * A program for test/interop/host-pin.test.ts: starts a token host as `connect` would, in a terminal or without one,
 * and unlocks in the way its argument names. It prints `RESULT name {json}` lines. Everything that varies comes in the
 * environment: HOST_MODULE, HOST_PIN_SOURCE (json), HOST_TIMEOUT_MS.
 */
import { createTokenHost } from "../../dist/token/host/host.js";

const abort = new AbortController();
const origin = { kind: "local", destination: null, user: null, host: null, port: null, hostKeySha256: null, connectId: "test" };
const ctx = { client: "test", origin, signal: abort.signal };
const host = await createTokenHost({
  modulePath: process.env.HOST_MODULE,
  pinSource: JSON.parse(process.env.HOST_PIN_SOURCE ?? '{"kind":"ask"}'),
});
const call = (name, args) => host.cryptoki.call(name, args, ctx);
const print = (name, value) =>
  process.stdout.write(`RESULT ${name} ${JSON.stringify(value, (_key, one) => (typeof one === "bigint" ? Number(one) : one))}\n`);

const { slots } = await call("C_GetSlotList", { tokenPresent: 1, room: 64 });
const slot = slots[0];
const open = async () => (await call("C_OpenSession", { slot, flags: 6n })).session;
const session = await open();
const timeoutMs = Number(process.env.HOST_TIMEOUT_MS ?? 20_000);
const request = (who = "ops@bastion") => ({ slot, session, userType: 1n, who, timeoutMs });
const unlock = async (name, inner = ctx, who = undefined) => print(name, await host.unlock(request(who), inner));
const state = async () => (await call("C_GetSessionInfo", { session })).state;
/** Resolves when the test says so, with SIGUSR2 to this process. */
const told = () => new Promise((resolve) => process.once("SIGUSR2", resolve));
print("pids", { program: process.pid, host: host.pid });
const nextPrompt = () =>
  new Promise((resolve) => {
    const off = host.events.on("prompt", (event) => {
      if (event.state !== "open") return;
      off();
      resolve(event);
    });
  });

const modes = {
  async unlock() {
    await unlock("unlock");
    print("state", await state());
  },
  async twice() {
    await unlock("first");
    await unlock("second");
    print("state", await state());
  },
  async release() {
    await unlock("first");
    await call("C_Logout", { session });
    await unlock("second");
    print("state", await state());
  },
  async lock() {
    await unlock("first");
    await host.lock(slot);
    print("state", await state());
    await unlock("second");
  },
  async together() {
    await Promise.all([unlock("first"), unlock("second"), unlock("other", ctx, "dev@elsewhere")]);
  },
  async abort() {
    const gone = new AbortController();
    const running = unlock("unlock", { ...ctx, signal: gone.signal });
    await told();
    gone.abort();
    await running;
  },
  async busy() {
    const prompt = nextPrompt();
    const running = unlock("unlock");
    await prompt;
    print("meanwhile", (await call("C_GetTokenInfo", { slot })).rv);
    await running;
  },
  async kill() {
    const running = unlock("unlock");
    await told();
    const restarted = new Promise((resolve) => host.events.on("epoch", resolve));
    process.kill(host.pid, "SIGKILL");
    await running;
    await restarted;
  },
  /** A key that wants a log-in of its own for each signature. */
  async context() {
    await unlock("unlock");
    const yes = (type) => ({ type, value: Buffer.from([1]), length: 1 });
    const curve = { type: 0x180, value: Buffer.from("06082a8648ce3d030107", "hex"), length: 10 };
    const privateTemplate = [yes(0x2), yes(0x108), yes(0x202)];
    const mechanism = { type: 0x1040, parameter: null };
    const { privateKey } = await call("C_GenerateKeyPair", { session, mechanism, publicTemplate: [curve], privateTemplate });
    const begin = () => call("C_SignInit", { session, mechanism: { type: 0x1041, parameter: null }, key: privateKey });
    const sign = async () => (await call("C_Sign", { session, data: Buffer.alloc(32), room: 256 })).rv;
    await begin();
    print("refused", await sign());
    await begin();
    print("context", await host.unlock({ ...request(), userType: 2n }, ctx));
    print("signed", await sign());
  },
  async pulled() {
    const go = told(); // before the line that the test waits for
    await unlock("first");
    await go;
    print("gone", (await call("C_GetSessionInfo", { session })).rv);
    await call("C_Logout", { session });
    await unlock("second");
  },
  async block() {
    const blocked = call("C_GetInfo", {});
    print("blocked", true);
    await blocked;
  },
  async wait() {
    await unlock("unlock");
  },
  async confirm() {
    print("confirm", await host.confirm("let dev@elsewhere use the token as well?", ctx, timeoutMs));
  },
  async "can-ask"() {
    print("can-ask", await host.canAsk());
  },
};

await modes[process.argv[2]]();
await host.close();
