/*
 * The log-in with a PIN from this side: what a token gets to see of it, and what is left of it.
 */
import { expect, it } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { createPinTries, createStockLogins, type PinTries } from "../../../../src/bastion/client/stock-login.js";
import { localContext } from "../../../../src/cryptoki/local-context.js";
import { CKR } from "../../../../src/cryptoki/rv.js";
import { createPaperToken, type PaperToken } from "../../../support/paper-token.js";

const ctx = (signal = new AbortController().signal) => localContext("test", signal);

/** A token that takes 1234 alone, and takes its time. */
function strictToken(): PaperToken {
  const token = createPaperToken([], []);
  token.before = async (name, args) => {
    if (name !== "C_Login") return undefined;
    const isRight = (args["pin"] as Buffer).equals(Buffer.from("1234"));
    for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
    return { rv: isRight ? CKR.CKR_OK : CKR.CKR_PIN_INCORRECT };
  };
  return token;
}

function loginsOf(token: PaperToken, pins: string[], tries: PinTries = createPinTries()) {
  const given: Buffer[] = [];
  const pin = async () => {
    const bytes = Buffer.from(pins.length > 1 ? (pins.shift() ?? "") : (pins[0] ?? ""));
    given.push(bytes);
    return bytes;
  };
  return { ...createStockLogins({ cryptoki: token, pin, tries }), given };
}

const outcome = (work: Promise<number>) =>
  work.catch((thrown: unknown) => (thrown instanceof TokenfwdError ? thrown.code : String(thrown)));
const countOf = (token: PaperToken) => token.calls.filter((name) => name === "C_Login").length;

it("a wrong PIN is one try, also for many log-ins at once", async () => {
  const token = strictToken();
  const { loginForOperation, given } = loginsOf(token, ["4321"]);
  const all = await Promise.all([1n, 2n, 3n, 4n].map((session) => outcome(loginForOperation(7n, session, ctx()))));
  expect(all).toEqual([CKR.CKR_PIN_INCORRECT, "E_PIN_WRONG", "E_PIN_WRONG", "E_PIN_WRONG"]);
  expect(countOf(token)).toBe(1);
  expect(given.map((each) => each.toString("hex"))).toEqual(Array(4).fill("00000000"));
});

it("a wrong PIN is not tried again over another connection, and a right one is taken", async () => {
  const token = strictToken();
  const tries = createPinTries();
  expect(await outcome(loginsOf(token, ["4321"], tries).login(7n, 1n, ctx()))).toBe(CKR.CKR_PIN_INCORRECT);
  const { login } = loginsOf(token, ["4321", "1234"], tries);
  expect(await outcome(login(7n, 1n, ctx()))).toBe("E_PIN_WRONG");
  expect(await outcome(login(7n, 1n, ctx()))).toBe(CKR.CKR_OK);
  expect(countOf(token)).toBe(2);
});

it("no answer and an empty one are no try", async () => {
  const token = strictToken();
  expect(await outcome(loginsOf(token, [""]).login(7n, 1n, ctx()))).toBe("E_PIN_CANCELLED");
  const { login } = createStockLogins({ cryptoki: token, pin: async () => null, tries: createPinTries() });
  expect(await outcome(login(7n, 1n, ctx()))).toBe("E_PIN_CANCELLED");
  expect(countOf(token)).toBe(0);
});

it("a question that nobody waits for any more holds up no other, and its late answer is wiped", async () => {
  const token = strictToken();
  const late = Buffer.from("1234");
  let answer = (_pin: Buffer): void => {};
  const questions = [new Promise<Buffer>((resolve) => (answer = resolve)), Promise.resolve(Buffer.from("1234"))];
  const pin = async () => (await questions.shift()) ?? null;
  const { login } = createStockLogins({ cryptoki: token, pin, tries: createPinTries() });
  const stop = new AbortController();
  const first = outcome(login(7n, 1n, ctx(stop.signal)));
  const second = outcome(login(7n, 2n, ctx()));
  while (questions.length > 1) await new Promise(setImmediate);
  stop.abort(new Error("enough"));
  expect(await first).toBe("Error: enough");
  expect(await second).toBe(CKR.CKR_OK);
  answer(late);
  await new Promise(setImmediate);
  expect(late.toString("hex")).toBe("00000000");
  expect(countOf(token)).toBe(1);
});
