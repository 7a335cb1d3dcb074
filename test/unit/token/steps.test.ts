/*
 * What the process with the module makes ahead, and what it makes of it when the next call comes.
 */
import { describe, expect, it } from "vitest";
import type { CallName } from "../../../src/cryptoki/calls.js";
import { CKR } from "../../../src/cryptoki/rv.js";
import type { AnyResult } from "../../../src/cryptoki/types.js";
import { createSteps } from "../../../src/token/host/steps.js";

const ECDSA = { type: 0x1041, parameter: null };
const SIGNED: AnyResult = { rv: CKR.CKR_OK, output: Buffer.alloc(64) };

/** Steps over a module that answers as it is told, and what was made of it. */
function start(
  answer: (name: CallName) => AnyResult = (name) => (name === "C_Sign" ? SIGNED : { rv: CKR.CKR_OK, session: 5n }),
  signMs = 1,
) {
  const made: string[] = [];
  let clock = 0;
  const driver = {
    call(name: CallName) {
      made.push(name);
      if (name === "C_Sign") clock += signMs;
      return answer(name) as never;
    },
  };
  const steps = createSteps(driver, { observe() {} }, () => clock);
  const init = (key: bigint) => ({ name: "C_SignInit", args: { session: 5n, mechanism: ECDSA, key } }) as const;
  /** One signature; answers what was made for it, and after its answer. */
  function sign(key = 7n, isAlone = true, again = true) {
    made.length = 0;
    const args = { session: 5n, data: Buffer.alloc(32), room: 64 };
    const { ahead = false } = steps.make({ kind: "call", id: 1, name: "C_Sign", args, first: init(key), again }, isAlone);
    const before = [...made];
    steps.goAhead();
    return { before, ahead, after: made.slice(before.length) };
  }
  const call = (name: CallName, args: object) => steps.make({ kind: "call", id: 1, name, args }, true).result.rv;
  return { steps, made, sign, call };
}

const BOTH = ["C_SignInit", "C_Sign"];

describe("a C_SignInit that is likely to come again", () => {
  it("is made after the answer, and not when it comes", () => {
    const { sign } = start();
    expect(sign()).toEqual({ before: BOTH, ahead: true, after: ["C_SignInit"] });
    expect(sign()).toEqual({ before: ["C_Sign"], ahead: true, after: ["C_SignInit"] });
  });

  it("is not made ahead where a call waits, where it is not likely, or where there is no signature", () => {
    expect(start().sign(7n, false)).toEqual({ before: BOTH, ahead: false, after: [] });
    expect(start().sign(7n, true, false)).toEqual({ before: BOTH, ahead: false, after: [] });
    const asked = start((name) => (name === "C_Sign" ? { rv: CKR.CKR_OK, output: 64 } : { rv: CKR.CKR_OK }));
    expect(asked.sign()).toEqual({ before: BOTH, ahead: false, after: [] });
  });

  it("is not made ahead on a token that takes its time", () => {
    expect(start(undefined, 8).sign()).toEqual({ before: BOTH, ahead: false, after: [] });
  });

  it("is made again when it comes, where it failed before", () => {
    let inits = 0;
    const { sign } = start((name) => (name === "C_Sign" ? SIGNED : { rv: ++inits === 2 ? CKR.CKR_DEVICE_ERROR : CKR.CKR_OK }));
    sign();
    expect(sign().before).toEqual(BOTH);
  });

  it("is nothing for another key, nor for another session that was given the number", () => {
    const { sign, call } = start();
    sign();
    expect(sign(8n).before).toEqual(BOTH);
    sign(8n);
    expect(call("C_CloseSession", { session: 5n })).toBe(CKR.CKR_OK);
    expect(sign(8n).before).toEqual(BOTH);
    call("C_OpenSession", { slot: 0n, flags: 4n });
    expect(sign(8n).before).toEqual(BOTH);
  });

  it("is used by a C_SignInit that comes alone", () => {
    const { sign, call, made } = start();
    sign();
    made.length = 0;
    expect(call("C_SignInit", { session: 5n, mechanism: ECDSA, key: 7n })).toBe(CKR.CKR_OK);
    expect(made).toEqual([]);
    expect(call("C_SignInit", { session: 5n, mechanism: ECDSA, key: 7n })).toBe(CKR.CKR_OK);
    expect(made).toEqual(["C_SignInit"]);
  });
});
