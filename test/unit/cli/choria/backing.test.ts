/* When what stands behind a choria is of no more use to it, and the PIN that one run asks for once. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { createEmitter } from "../../../../src/base/events.js";
import type { BrokerRelayEvents } from "../../../../src/choria/relay/relay.js";
import { whenUseless } from "../../../../src/cli/choria/backing.js";
import { createPinMemory, tokenOf } from "../../../../src/cli/choria/pin-memory.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const cause = new TokenfwdError("E_CHORIA_BROKER", "nobody listens there", { hint: "is it running?" });

function watched(brokers: number) {
  const events = createEmitter<BrokerRelayEvents>();
  const seen: { error: TokenfwdError | null } = { error: null };
  void whenUseless(events, brokers, 15_000).then((error) => {
    seen.error = error;
  });
  const say = (broker: string, state: "up" | "down") => events.emit("upstream", { broker, state, cause: state === "up" ? null : cause });
  return { events, seen, say };
}

it("a broker that stays away ends it 15 s after the first failure, however often it is tried meanwhile", async () => {
  const { seen, say } = watched(1);
  say("a", "up");
  for (let second = 0; second < 15; second++) {
    say("a", "down");
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect(seen.error).toMatchObject({ code: "E_CHORIA_BROKER", message: "nobody listens there, for 15 s by now", hint: "is it running?" });
});

it("one that comes back does not, nor one of two", async () => {
  const { seen, say } = watched(2);
  say("a", "down");
  await vi.advanceTimersByTimeAsync(60_000);
  say("b", "down");
  await vi.advanceTimersByTimeAsync(14_000);
  say("b", "up");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(seen.error).toBeNull();
});

it("a fault of the token's side ends it at once", async () => {
  const { events, seen } = watched(1);
  events.emit("fault", { error: new TokenfwdError("E_REFUSED", "no") });
  await vi.advanceTimersByTimeAsync(0);
  expect(seen.error).toMatchObject({ code: "E_REFUSED" });
});

it("a PIN is asked for once, by whoever comes first, and every one who asks gets a copy to wipe", async () => {
  using pins = createPinMemory();
  const asked: string[] = [];
  const provider = pins.once(async ({ label }) => {
    asked.push(label);
    return Buffer.from("1234");
  });
  const signal = new AbortController().signal;
  const token = tokenOf("pkcs11:token=a%20b;id=%01");
  const [one, two] = await Promise.all([provider(token, signal), provider(token, signal)]);
  one?.fill(0);
  expect([two?.toString(), (await provider(token, signal))?.toString()]).toEqual(["1234", "1234"]);
  expect(asked).toEqual(["a b"]);
});
