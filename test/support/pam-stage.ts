/*
 * A PAM stack of our own for a real sshd, in a mount namespace that only that sshd sees: it asks for one password and knows one.
 * It must never touch the machine's /etc/pam.d. Linux and root only.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface PamStage {
  /** Words in front of sshd. */
  readonly within: readonly string[];
  /** Lines of sshd_config that let it ask. */
  readonly config: readonly string[];
  dispose(): void;
}

/** Why there can be none here, or null when there can. */
export function pamStageMissing(): string | null {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "only root on Linux can give sshd a PAM stack of its own";
  const made = spawnSync("unshare", ["-m", "mount", "--bind", "/tmp", "/mnt"], { encoding: "utf8" });
  return made.status === 0 ? null : "no mount namespace can be made here";
}

/** A stack that lets in who types `password`. */
export function createPamStage(password: string): PamStage {
  const dir = mkdtempSync(join(tmpdir(), "tfwd-pam-"));
  const check = join(dir, "check");
  const known = join(dir, "known");
  writeFileSync(known, password, { mode: 0o600 });
  // pam_exec ends the password with a NUL.
  writeFileSync(check, `#!/bin/sh\n[ "$(tr -d '\\000')" = "$(cat ${known})" ]\n`, { mode: 0o700 });
  const stack = [
    `auth requisite pam_exec.so expose_authtok quiet ${check}`,
    // pam_exec alone sets no credentials, and sshd ends the session for want of them.
    "auth required pam_permit.so",
    "account required pam_permit.so",
    "session required pam_permit.so",
  ];
  mkdirSync(join(dir, "pam.d"));
  for (const service of ["sshd", "other"]) writeFileSync(join(dir, "pam.d", service), `${stack.join("\n")}\n`);
  return {
    within: ["unshare", "-m", "sh", "-c", `mount --bind '${join(dir, "pam.d")}' /etc/pam.d && exec "$@"`, "sh"],
    config: ["UsePAM yes", "KbdInteractiveAuthentication yes", "PasswordAuthentication yes"],
    dispose: () => rmSync(dir, { recursive: true, force: true }),
  };
}
