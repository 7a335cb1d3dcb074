/*
 * A report for a bug: what is in it, and what is not even when it came into a line.
 */
import { describe, expect, it } from "vitest";
import { reportText, withoutSecrets } from "../../../src/doctor/report.js";
import type { CheckResult } from "../../../src/doctor/walk.js";

const NAMES = { home: "/home/alice", user: "alice" };
const FACTS = {
  version: "1",
  at: "2026-01-01T00:00:00.000Z",
  node: "20",
  platform: "linux",
  arch: "x64",
  release: "6",
  side: "workstation",
  options: ["module", "json"],
} as const;

describe("a report", () => {
  it("holds every check with its cause and code, and what ran it", () => {
    const result: CheckResult = {
      id: "module",
      title: "PKCS#11 module",
      status: "fail",
      cause: "missing",
      detail: "/home/alice/m.so does not exist",
      mend: "look at /home/alice",
      code: "E_MODULE",
    };
    expect(JSON.parse(reportText([result], FACTS, NAMES))).toEqual({
      v: 1,
      ...FACTS,
      checks: [{ id: "module", status: "fail", cause: "missing", code: "E_MODULE", detail: "~/m.so does not exist", mend: "look at ~" }],
    });
  });

  it.each([
    ["pkcs11:token=a?pin-value=1234", "pkcs11:token=a?pin-value=(removed)"],
    ["PIN=4321, and then", "PIN=(removed), and then"],
    ["-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY----- rest", "(removed) rest"],
    ["-----BEGIN RSA PRIVATE KEY-----\nMIIE", "(removed)"],
    ["/home/alice/.ssh/config and /home/ops/x", "~/.ssh/config and /home/USER/x"],
    ["/run/media/alice/stick", "/run/media/USER/stick"],
    ["alice@bastion by malice@10.0.0.1 port 22", "USER@bastion by USER@10.0.0.1 port 22"],
    ["aes256-gcm@openssh.com, curve25519-sha256@libssh.org", "aes256-gcm@openssh.com, curve25519-sha256@libssh.org"],
    ["the file /run/user/1000/pin", "the file /run/user/1000/pin"],
  ])("has of %j only %j", (text, clean) => {
    expect(withoutSecrets(text, NAMES)).toBe(clean);
  });

  it("takes nothing out where the home is the root or nobody has a name", () => {
    expect(withoutSecrets("/etc/a", { home: "/", user: "" })).toBe("/etc/a");
  });
});
