/* Why sshd refused, from what it says on the side; and the address that stock clients read. */
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { forwardRefused } from "../../../src/forward/causes.js";
import { p11KitAddress } from "../../../src/wire/p11kit/address.js";

describe("a refused forward", () => {
  const allowed = "/home/u/.ssh/authorized_keys:1: key options: agent-forwarding port-forwarding pty user-rc x11-forwarding";
  const forbidden = "/home/u/.ssh/authorized_keys:1: key options: agent-forwarding pty user-rc x11-forwarding";
  for (const [texts, state, message] of [
    [[allowed, "Server has disabled streamlocal forwarding."], "none", /switched off/],
    [[forbidden, "Server has disabled streamlocal forwarding."], "none", /your key may not forward/],
    [[allowed, "port forwarding refused"], "none", /AllowTcpForwarding no/],
    [[allowed], "socket", /in the way/],
    [[], "none", /cannot make/],
  ] as const) {
    it(`is explained: ${message.source}`, () => {
      const error = forwardRefused("/run/x/p11.sock", texts, state);
      expect(error.code).toBe("E_FORWARD_REFUSED");
      expect(error.message).toMatch(message);
      expect(error.hint).toBeTruthy();
    });
  }
});

describe("the address", () => {
  it("is written as p11-kit writes it", () => {
    expect(p11KitAddress("/tmp/c p~11:é%/s-1_2.sock")).toBe("unix:path=/tmp/c%20p%7E11%3A%C3%A9%25/s-1_2.sock");
  });

  it("is read back by a program that decodes percents", () => {
    const path = "/run/user/1000/a b+c@d,e=f;g'h\"/p11.sock";
    const encoded = p11KitAddress(path).slice("unix:path=".length);
    expect(
      execFileSync("python3", ["-c", "import sys, urllib.parse; sys.stdout.write(urllib.parse.unquote(sys.argv[1]))", encoded], {
        encoding: "utf8",
      }),
    ).toBe(path);
  });
});
