/* What a person and a machine are told of uses, whichever wire they came over. */
import { expect, test } from "vitest";
import type { AgentEvents } from "../../../src/agent/agent.js";
import { createEmitter } from "../../../src/base/events.js";
import { silentLog } from "../../../src/base/log.js";
import { reportActivity } from "../../../src/cli/activity.js";
import { forwardOrigin } from "../../support/fake-token-host.js";

const USE: AgentEvents["use"] = {
  client: "c1",
  key: "rsa key",
  mechanism: "CKM_SHA256_RSA_PKCS",
  call: "C_Sign",
  ok: true,
  rv: 0,
  origin: forwardOrigin("bastion"),
  purpose: null,
  input: null,
  what: null,
};

function reporting() {
  const events = createEmitter<AgentEvents>();
  const lines: string[] = [];
  const told: unknown[] = [];
  const logged: unknown[] = [];
  const stop = reportActivity({
    agent: { events },
    events: { emit: (event, data) => told.push({ event, ...data }) },
    ui: { line: (text: string) => lines.push(text), warning: (text: string) => lines.push(text) } as never,
    log: { ...silentLog, info: (message, fields) => logged.push({ message, ...fields }) },
  });
  return { events, lines, told, logged, stop };
}

test("a line names the purpose, where a client has said one", () => {
  const { events, lines, stop } = reporting();
  for (const purpose of [null, "data", "git-commit"]) events.emit("use", { ...USE, purpose });
  events.emit("use", { ...USE, purpose: "release", ok: false, rv: 0x31 });
  stop();
  const used = "used rsa key with CKM_SHA256_RSA_PKCS (C_Sign) for c1 on ops@bastion";
  expect(lines).toEqual([used, used, `${used}, for git-commit`, `${used}, for release, which failed: CKR_DEVICE_MEMORY`]);
});

test("a line says so where a client has handed over a digest, which nobody at the workstation can look into", () => {
  const { events, lines, stop } = reporting();
  for (const input of [null, "document", "digest"] as const) events.emit("use", { ...USE, input, purpose: "release" });
  stop();
  const used = "used rsa key with CKM_SHA256_RSA_PKCS (C_Sign) for c1 on ops@bastion";
  expect(lines).toEqual([
    `${used}, for release`,
    `${used}, for release`,
    `${used}, over a digest of what nobody here has seen, for release`,
  ]);
});

test("a line says what was signed, where the agent has read it", () => {
  const { events, lines, told, stop } = reporting();
  events.emit("use", { ...USE, purpose: "choria-request", input: "document", what: "rpcutil#ping in mcollective" });
  stop();
  expect(lines).toEqual([
    "used rsa key with CKM_SHA256_RSA_PKCS (C_Sign) for c1 on ops@bastion, for choria-request: rpcutil#ping in mcollective",
  ]);
  expect(told).toMatchObject([{ event: "use", purpose: "choria-request", what: "rpcutil#ping in mcollective" }]);
});

test("a client that is refused without end does not hide its uses behind that", () => {
  const { events, lines, stop } = reporting();
  const refused = { client: "c1", call: "C_DestroyObject", rv: 0xe2, why: "no", origin: forwardOrigin("bastion") };
  for (let i = 0; i < 40; i++) events.emit("refused", refused);
  events.emit("use", USE);
  stop();
  expect(lines).toHaveLength(12);
  expect(lines.slice(10)).toEqual([expect.stringMatching(/^used rsa key/), "and 30 more refusals by c1 within a second"]);
});

test("the event and the log carry the purpose and what was handed over", () => {
  const { events, told, logged, stop } = reporting();
  events.emit("use", { ...USE, purpose: "data", input: "digest" });
  stop();
  const { origin: _origin, ...use } = USE;
  expect(told).toEqual([{ event: "use", ...use, purpose: "data", input: "digest" }]);
  expect(logged).toEqual([{ message: "use", ...use, purpose: "data", input: "digest" }]);
});

test("what a client calls itself goes to the log alone", () => {
  const { events, lines, told, logged, stop } = reporting();
  events.emit("hello", { client: "c1", name: "tokenfwd 0.1.0", origin: forwardOrigin("bastion") });
  stop();
  expect([lines, told]).toEqual([[], []]);
  expect(logged).toEqual([{ message: "client", client: "c1", callsItself: "tokenfwd 0.1.0" }]);
});
