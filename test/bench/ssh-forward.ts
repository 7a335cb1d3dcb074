/*
 * What a person does without us: OpenSSH's `ssh -R` of a socket, as the documented recipe has it. Its process is ended through
 * the clean-ups of whoever asked for it.
 */
import { spawn } from "node:child_process";
import type { CleanUps } from "./clean-ups.js";

export interface SshForwardOptions {
  /** For `ssh -F`, with `Host bastion`. */
  readonly sshConfig: string;
  /** The socket here and the one to be made on the bastion. */
  readonly local: string;
  readonly remote: string;
  /** `none`: `ssh -N -R`. `pty`: `ssh -tt -R` with an idle program, which makes OpenSSH send small packets at once. */
  readonly session: "none" | "pty";
  /** Words in front of ssh, such as `ip netns exec NAME`. */
  readonly within?: readonly string[];
}

/** Answers the process id of ssh when the forward stands. */
export async function startSshForward(options: SshForwardOptions, cleanUps: CleanUps): Promise<number> {
  const { sshConfig, local, remote, session, within = [] } = options;
  // -v, because only then it says when the forward stands; it logs nothing for a message that passes.
  const common = ["ssh", "-v", "-F", sshConfig, "-o", "ExitOnForwardFailure=yes", "-R", `${remote}:${local}`];
  const [file = "", ...args] = [...within, ...common, ...(session === "pty" ? ["-tt", "bastion", "cat >/dev/null"] : ["-N", "bastion"])];
  // A terminal's session ends with its input: it gets a pipe that stays open.
  const ssh = spawn(file, args, { stdio: ["pipe", "ignore", "pipe"] });
  ssh.stdin.on("error", () => {});
  const ended = new Promise<void>((resolve) => {
    ssh.once("error", () => resolve());
    ssh.once("close", () => resolve());
  });
  cleanUps.add(async () => {
    ssh.kill("SIGTERM");
    await ended;
  });
  await new Promise<void>((resolve, reject) => {
    let said = "";
    ssh.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      const stands = /remote forward success/.test(said) && (session === "none" || /Entering interactive session/.test(said));
      if (stands) resolve();
    });
    void ended.then(() => reject(new Error(`ssh -R has ended: ${said}`)));
  });
  return ssh.pid ?? -1;
}
