/* Every way a connection fails has its own words and a mend. */
import { describe, expect, it } from "vitest";
import { parseSshG } from "../../../src/forward/ssh-settings.js";
import { connectionError } from "../../../src/forward/ssh2/connection-error.js";

const settings = parseSshG("b", "user u\nhostname h\nport 22\n");
const failure = (message: string, extra: object = {}) => Object.assign(new Error(message), extra);

describe("a failed connection", () => {
  for (const [error, ready, code, text] of [
    [failure("connect ECONNREFUSED", { level: "client-socket", code: "ECONNREFUSED" }), false, "E_SSH", /refused the connection/],
    [failure("getaddrinfo ENOTFOUND h", { level: "client-socket", code: "ENOTFOUND" }), false, "E_SSH", /cannot be resolved/],
    [failure("connect ETIMEDOUT", { level: "client-socket", code: "ETIMEDOUT" }), false, "E_SSH", /cannot be reached/],
    [failure("connect EHOSTUNREACH", { level: "client-socket", code: "EHOSTUNREACH" }), false, "E_SSH", /cannot be reached/],
    [failure("Handshake failed: no matching host key format", { level: "handshake" }), false, "E_SSH_UNSUPPORTED", /no matching host key/],
    [failure("Keepalive timeout", { level: "client-timeout" }), true, "E_SSH_LOST", /stopped answering/],
    [failure("read ECONNRESET", { level: "client-socket", code: "ECONNRESET" }), true, "E_SSH_LOST", /was lost/],
    [failure("evil\u001b[2J", { level: "protocol" }), false, "E_SSH", /evil\\x1b/],
  ] as const) {
    it(`is told: ${text.source}`, () => {
      const told = connectionError(error, settings, ready);
      expect(told.code).toBe(code);
      expect(told.message).toMatch(text);
      expect(told.hint).toBeTruthy();
    });
  }
});
