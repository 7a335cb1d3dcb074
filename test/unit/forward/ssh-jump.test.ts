/* ProxyJump as it stands in a configuration. */
import { expect, it } from "vitest";
import { jumpDestination } from "../../../src/forward/ssh-jump.js";

it.each([
  [null, null],
  ["jump", { destination: "jump", port: null }],
  ["ops@jump.example:2200", { destination: "ops@jump.example", port: 2200 }],
  ["ssh://ops@jump:22/", { destination: "ops@jump", port: 22 }],
  ["[2001:db8::7]:2200", { destination: "2001:db8::7", port: 2200 }],
  ["ops@[fe80::1%eth0]", { destination: "ops@fe80::1%eth0", port: null }],
])("%j is %j", (value, wanted) => {
  expect(jumpDestination(value)).toEqual(wanted);
});

it.each(["a,b", "a,b,c"])("%j is more than one", (value) => {
  expect(() => jumpDestination(value)).toThrow(expect.objectContaining({ code: "E_SSH_UNSUPPORTED" }));
});

it.each(["-oProxyCommand=x", "", "jump:0", "jump:65536", "jump:x", "a b", "ops@-host", "jump/x"])("%j is no host", (value) => {
  expect(() => jumpDestination(value)).toThrow(expect.objectContaining({ code: "E_SSH_CONFIG" }));
});
