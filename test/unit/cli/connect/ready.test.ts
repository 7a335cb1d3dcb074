/* What connect says of the tools that it has put on the bastion. */
import { expect, test } from "vitest";
import { checkConnectOptions, readBundle } from "../../../../src/cli/connect/command.js";
import { readyEvent, readyLines } from "../../../../src/cli/connect/ready.js";
import type { ForwardReady } from "../../../../src/forward/types.js";

const OPTIONS = checkConnectOptions("b", { module: "/m.so", sshOption: [] }, null);
const READY: ForwardReady = {
  user: "ops",
  host: "bastion.example",
  port: 22,
  hostKey: "SHA256:abc",
  pty: true,
  verified: "rpc",
  remoteSocket: "/run/x",
  address: "unix:path=/run/x",
  wellKnown: "ours",
  tools: { directory: "/run/it's/bin", path: "/run/it's/bin/tokenfwd", node: "/usr/bin/node", nodeVersion: "v20.1.0", bytes: 7 },
  rttMs: 1,
  warnings: [],
};

test("without a command the line to type is there, quoted for a shell, and who may use the token still comes last", () => {
  const lines = readyLines(OPTIONS, null, [], READY);
  const text = lines.join("\n");
  expect(text).toContain("run by /usr/bin/node v20.1.0");
  expect(text).toContain("export PATH='/run/it'\\''s/bin':\"$PATH\" TOKENFWD_SOCKET='/run/x'");
  expect(lines.at(-1)).toMatch(/^until this command ends/);
  expect(readyLines(OPTIONS, null, [], { ...READY, tools: null }).join("\n")).not.toContain("tools:");
});

test("with a command there is one line more, before ready", () => {
  const lines = readyLines({ ...OPTIONS, command: ["x"] }, null, [], READY);
  expect(lines).toEqual(["tools: the command finds tokenfwd, run by /usr/bin/node v20.1.0", expect.stringMatching(/^ready: /)]);
});

test("the event has the directory, or null", () => {
  expect(readyEvent(OPTIONS, null, [], READY)["tools"]).toBe("/run/it's/bin");
  expect(readyEvent(OPTIONS, null, [], { ...READY, tools: null })["tools"]).toBeNull();
});

test("an installation without the file that --tools sends says so before anything is opened", () => {
  expect(() => readBundle("/nowhere/tokenfwd-bastion.cjs")).toThrow(expect.objectContaining({ code: "E_TOOLS" }));
});
