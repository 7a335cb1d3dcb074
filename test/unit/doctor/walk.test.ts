/*
 * The runner of doctor: order, what is reached, whose finding an error is, time limits, and the exit status.
 */
import { describe, expect, it } from "vitest";
import { TokenfwdError } from "../../../src/base/errors.js";
import { causeOf } from "../../../src/doctor/causes.js";
import { type Cause, type Check, defineCheck, fillMend, notReached, pass } from "../../../src/doctor/check.js";
import { held, lazily } from "../../../src/doctor/lazy.js";
import { walk, walkStatus } from "../../../src/doctor/walk.js";

const never = new AbortController().signal;
const FAIL: Cause = { status: "fail", code: "E_MODULE", meaning: "It is broken.", mend: "mend {what}" };
const WARN: Cause = { ...FAIL, status: "warn", code: null };

function check(id: string, more: Partial<Check<null>> = {}): Check<null> {
  return {
    ...defineCheck<null>()({ id, title: id, looks: "Something.", causes: { bad: FAIL, poor: WARN }, run: async () => pass("fine") }),
    ...more,
  };
}
const walked = async (checks: readonly Check<null>[]) =>
  (await walk(checks, null, { signal: never })).map(({ id, status, cause }) => [id, status, cause]);

describe("a walk", () => {
  it("goes on behind a broken check, but for what needs it, and what needs that", async () => {
    const checks = [
      check("one", { run: async (_c, { broken }) => broken("bad", "it is") }),
      check("two", { needs: ["one"] }),
      check("three", { needs: ["two"] }),
      check("four"),
    ];
    expect(await walked(checks)).toEqual([
      ["one", "fail", "bad"],
      ["two", "not-reached", null],
      ["three", "not-reached", null],
      ["four", "pass", null],
    ]);
  });

  it("lets what needs a warned check be looked at", async () => {
    const checks = [check("one", { run: async (_c, { broken }) => broken("poor", "a bit") }), check("two", { needs: ["one"] })];
    expect(await walked(checks)).toEqual([
      ["one", "warn", "poor"],
      ["two", "pass", null],
    ]);
  });

  it("says of an error that it is the check's own, a later one's, or none of the table's", async () => {
    const shared = lazily(async () => {
      throw new TokenfwdError("E_SSH_AUTH", "no key was taken", { hint: "load one" });
    });
    const run = async () => pass(String(await shared()));
    const checks = [
      check("dial", { run }),
      check("key", { run, causes: { other: { ...FAIL, code: "E_SSH" } } }),
      check("login", { run, causes: { refused: { ...FAIL, code: "E_SSH_AUTH", usual: true } } }),
      check("shell", { run, needs: ["login"] }),
      check("odd", {
        run: async () => {
          throw new TokenfwdError("E_CONFIG", "something else");
        },
      }),
    ];
    const results = await walk(checks, null, { signal: never });
    expect(results.map(({ id, status, cause, code }) => [id, status, cause, code])).toEqual([
      ["dial", "pass", null, null],
      ["key", "pass", null, null],
      ["login", "fail", "refused", "E_SSH_AUTH"],
      ["shell", "not-reached", null, null],
      ["odd", "fail", "unexplained", "E_CONFIG"],
    ]);
    expect(results[2]).toMatchObject({ detail: "no key was taken", mend: "load one" });
  });

  it("says of an error that belongs to a check which has passed that it is the first one's that meets it", async () => {
    const lost = lazily(async () => {
      throw new TokenfwdError("E_SSH_AUTH", "the connection was lost");
    });
    const run = async () => pass(String(await lost()));
    const login = check("login", { causes: { refused: { ...FAIL, code: "E_SSH_AUTH", usual: true } } });
    const results = await walk([login, check("one", { run }), check("two", { run })], null, { signal: never });
    expect(results.map(({ id, status, cause }) => [id, status, cause])).toEqual([
      ["login", "pass", null],
      ["one", "fail", "unexplained"],
      ["two", "not-reached", null],
    ]);
    expect(walkStatus(results)).toBe(10);
  });

  it("says of two checks with the same causes that it is the one that looked", async () => {
    const causes = { lost: { ...FAIL, code: "E_SSH_LOST" as const, usual: true as const } };
    const there = check("there", {
      causes,
      run: async () => {
        throw new TokenfwdError("E_SSH_LOST", "gone");
      },
    });
    expect(await walked([check("here", { causes }), there])).toEqual([
      ["here", "pass", null],
      ["there", "fail", "lost"],
    ]);
  });

  it("gives a check up at its limit and looks at the next", async () => {
    let aborted = false;
    const hangs = check("hangs", {
      limitMs: 20,
      run: (_c, { signal }) => {
        signal.addEventListener("abort", () => {
          aborted = true;
        });
        return new Promise(() => {});
      },
    });
    expect(await walked([hangs, check("next")])).toEqual([
      ["hangs", "fail", "timed-out"],
      ["next", "pass", null],
    ]);
    expect(aborted).toBe(true);
  });

  it("ends with the reason of its signal, in the midst of a check", async () => {
    const stop = new AbortController();
    const waits = check("waits", { run: () => new Promise(() => {}) });
    const ending = walk([waits], null, { signal: stop.signal });
    stop.abort(new TokenfwdError("E_INTERRUPTED", "interrupted"));
    await expect(ending).rejects.toMatchObject({ code: "E_INTERRUPTED" });
  });

  it("shows a detail and a mend without what would move a terminal", async () => {
    const run: Check<null>["run"] = async (_c, { broken }) => broken("bad", "label \u001b[2J", { what: "it\n\u202e" });
    const [result] = await walk([check("one", { run })], null, { signal: never });
    expect(result?.detail).toBe("label \\x1b[2J");
    expect(result?.mend).toBe("mend it\\x0a\\u{202e}");
  });

  it("has the status of the first failed check, and 0 with warnings alone", async () => {
    const status = async (...checks: Check<null>[]) => walkStatus(await walk(checks, null, { signal: never }));
    const broken =
      (cause: string): Check<null>["run"] =>
      async (_c, looking) =>
        looking.broken(cause, "");
    const lost = { lost: { ...FAIL, code: "E_SSH_LOST" as const }, none: { ...FAIL, code: null } };
    expect(await status(check("a", { run: broken("poor") }), check("b", { run: async () => notReached("no PIN") }))).toBe(0);
    expect(
      await status(
        check("a", { run: broken("poor") }),
        check("b", { run: broken("lost"), causes: lost }),
        check("c", { run: broken("bad") }),
      ),
    ).toBe(10);
    expect(await status(check("b", { run: broken("none"), causes: lost }), check("c", { run: broken("bad") }))).toBe(1);
  });
});

describe("the cause of an error", () => {
  const checks = [
    { id: "a", causes: { usual: { ...FAIL, usual: true as const }, special: FAIL } },
    { id: "b", causes: { special: { ...FAIL, code: "E_SSH" as const } } },
  ];
  it("is the one that its reason names under its code", () => {
    expect(causeOf({ code: "E_MODULE", reason: "special" }, checks)).toEqual({ check: "a", cause: "special" });
    expect(causeOf({ code: "E_SSH", reason: "special" }, checks)).toEqual({ check: "b", cause: "special" });
  });
  it("is the code's usual one where no reason is known, or none that the table has", () => {
    expect(causeOf({ code: "E_MODULE", reason: undefined }, checks)).toEqual({ check: "a", cause: "usual" });
    expect(causeOf({ code: "E_MODULE", reason: "new" }, checks)).toEqual({ check: "a", cause: "usual" });
    expect(causeOf({ code: "E_SSH", reason: undefined }, checks)).toBeNull();
  });
});

describe("a mend", () => {
  it("has a fact that is not known in capitals, as the page has it", () => {
    expect(fillMend("on {host}: rm {path}", { host: "bastion" })).toBe("on bastion: rm PATH");
  });
});

describe("what is held", () => {
  it("is closed at the end, also when that comes before it is open, and nothing is where it failed to open", async () => {
    const closers: (() => Promise<void>)[] = [];
    const closed: string[] = [];
    const defer = (close: () => Promise<void>) => void closers.push(close);
    let open: (name: string) => void = () => {};
    const opening = new Promise<string>((resolve) => {
      open = resolve;
    });
    const one = held(defer, opening, (name) => void closed.push(name));
    const other = held(defer, Promise.reject(new Error("not there")), () => void closed.push("never"));
    await expect(other).rejects.toThrow("not there");
    const ending = Promise.all(closers.map((close) => close()));
    expect(closed).toEqual([]);
    open("late");
    await ending;
    expect(closed).toEqual(["late"]);
    expect(await one).toBe("late");
  });
});

describe("a fact", () => {
  it("is found once, when it is first asked for", async () => {
    let times = 0;
    const fact = lazily(async () => ++times);
    expect(times).toBe(0);
    expect([await fact(), await fact()]).toEqual([1, 1]);
  });
});
