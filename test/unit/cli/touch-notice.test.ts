/*
 * How somebody is called to the device: the bell where there is a terminal, a notification where there is a desktop.
 */
import { expect, test } from "vitest";
import type { RunResult } from "../../../src/base/run.js";
import { createTouchNotice } from "../../../src/cli/touch-notice.js";

function notice(env: NodeJS.ProcessEnv, isTTY: boolean, run?: () => Promise<RunResult>) {
  const written: string[] = [];
  const ran: (readonly string[])[] = [];
  const touch = createTouchNotice({
    terminal: { isTTY, write: (text) => void written.push(text) },
    env,
    run: async (file, args) => {
      ran.push([file, ...args]);
      return run === undefined ? { exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0), failure: null } : run();
    },
  });
  return { touch, written, ran };
}

test("rings the terminal's bell, and no file's", () => {
  const [terminal, file] = [notice({}, true), notice({}, false)];
  terminal.touch("work");
  file.touch("work");
  expect([terminal.written, file.written]).toEqual([["\x07"], []]);
});

test("notifies a desktop, where there is one, with a label that is neither an option nor markup", () => {
  const [without, desktop] = [notice({}, false), notice({ WAYLAND_DISPLAY: "wayland-0" }, false)];
  without.touch("work");
  desktop.touch("--<b>work\x1b[31m</b>");
  expect(without.ran).toEqual([]);
  const [words = []] = desktop.ran;
  expect(words.slice(0, 4)).toEqual(["notify-send", "--app-name=tokenfwd", "--", "tokenfwd"]);
  expect(words[4]).toMatch(/^the token --&lt;b&gt;work[^\x1b]*&lt;\/b&gt; waits for a touch$/);
});

test("does not mind a desktop that fails", async () => {
  const { touch, ran } = notice({ DISPLAY: ":0" }, false, async () => Promise.reject(new Error("no such program")));
  touch("work");
  await new Promise((resolve) => setImmediate(resolve));
  expect(ran).toHaveLength(1);
});
