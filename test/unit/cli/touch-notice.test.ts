/*
 * How somebody is called to the device: the bell where there is a terminal, a notification where there is a desktop. And what is said of it.
 */
import { expect, test, vi } from "vitest";
import type { AgentEvents } from "../../../src/agent/agent.js";
import { createEmitter } from "../../../src/base/events.js";
import { silentLog } from "../../../src/base/log.js";
import type { RunResult } from "../../../src/base/run.js";
import { reportActivity } from "../../../src/cli/activity.js";
import { createTouchNotice } from "../../../src/cli/touch-notice.js";
import { silentUi } from "../../../src/cli/ui.js";

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

test("a wait for a touch is two events and one call, and a question is neither", () => {
  const { agent, told, called, stop } = activity();
  agent.emit("prompt", { kind: "touch", state: "open", token: "work", triesLeft: null });
  agent.emit("prompt", { kind: "touch", state: "closed", token: "work", triesLeft: null });
  agent.emit("prompt", { kind: "pin", state: "open", token: "work", triesLeft: null });
  stop();
  expect(told).toEqual([
    ["touch", { token: "work", state: "waiting" }],
    ["prompt", { kind: "touch", token: "work", triesLeft: null }],
    ["touch", { token: "work", state: "over" }],
    ["prompt", { kind: "pin", token: "work", triesLeft: null }],
  ]);
  expect(called).toEqual(["work"]);
});

test("whoever is to touch the token is told what for, where the agent has read it", () => {
  const { agent, told, lines, stop } = activity();
  const what = "rpcutil#ping in mcollective, filter: none, by choria=ptittle";
  agent.emit("prompt", { kind: "touch", state: "open", token: "work", triesLeft: null, what });
  stop();
  expect(told[0]).toEqual(["touch", { token: "work", state: "waiting", what }]);
  expect(lines).toEqual([`the token work has been waiting: touch it, to sign ${what}`]);
});

test("a log-in that comes to nothing is said once in ten seconds, however often a bastion tries", () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    const { agent, warnings, stop } = activity();
    for (let tries = 0; tries < 5; tries += 1) agent.emit("unlock-failed", { reason: "locked", slot: 1n });
    agent.emit("unlock-failed", { reason: "pin-pad", slot: 1n });
    expect(warnings.map((line) => line.slice(0, 30))).toEqual(["the PIN of the token is locked", "the token has a PIN pad of its"]);
    vi.advanceTimersByTime(10_001);
    agent.emit("unlock-failed", { reason: "locked", slot: 1n });
    expect(warnings).toHaveLength(3);
    stop();
  } finally {
    vi.useRealTimers();
  }
});

/** The activity of an agent that the test plays. */
function activity() {
  const agent = createEmitter<AgentEvents>();
  const told: unknown[] = [];
  const called: string[] = [];
  const warnings: string[] = [];
  const lines: string[] = [];
  const stop = reportActivity({
    agent: { events: agent },
    events: { emit: (event, data) => void told.push([event, data]) },
    ui: { ...silentUi, line: (text) => void lines.push(text), warning: (text) => void warnings.push(text) },
    log: silentLog,
    onTouch: (token) => void called.push(token),
  });
  return { agent, told, called, warnings, lines, stop };
}
