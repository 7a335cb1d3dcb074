/* Running a program: an answer in every case, and never a shell. */
import { describe, expect, it } from "vitest";
import { run } from "../../../src/base/run.js";

describe("run", () => {
  it("answers exit status and both outputs as bytes, with argv untouched and nothing on stdin", async () => {
    const result = await run("sh", ["-c", 'cat; printf "%s" "$1"; printf "\\377" >&2; exit 3', "x", "$(id) '\n"]);
    expect(result).toEqual({ exitCode: 3, stdout: Buffer.from("$(id) '\n"), stderr: Buffer.from([0xff]), failure: null });
  });

  it("gives input and environment", async () => {
    const result = await run("sh", ["-c", 'cat; printf "$TFWD_X"'], { input: Buffer.from([0, 1, 255]), env: { TFWD_X: "y" } });
    expect(result.stdout).toEqual(Buffer.from([0, 1, 255, 0x79]));
  });

  it("says what went wrong instead of rejecting", async () => {
    expect(await run("tokenfwd-no-such-program", [])).toMatchObject({ exitCode: null, failure: "missing" });
    expect(await run("sleep", ["60"], { timeoutMs: 50 })).toMatchObject({ exitCode: null, failure: "timeout" });
    expect(await run("sleep", ["60"], { signal: AbortSignal.timeout(50) })).toMatchObject({ exitCode: null, failure: "aborted" });
    expect(await run("head", ["-c", "100000", "/dev/zero"], { maxBytes: 1000 })).toMatchObject({ failure: "too-much-output" });
    expect(await run("sh", ["-c", "kill -KILL $$"])).toMatchObject({ exitCode: null, failure: "killed" });
  });
});
