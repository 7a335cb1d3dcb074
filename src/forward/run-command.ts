/*
 * Runs the person's command on the bastion: bytes both ways with back-pressure, end of input, size, signal, exit status.
 * It must never change a byte, and never end the caller's stdout or stderr.
 */
import type { Readable, Writable } from "node:stream";
import { TokenfwdError } from "../base/errors.js";
import { remoteCommand, remoteShell } from "./remote/command.js";
import type { ExitStatus, Transport } from "./transport.js";
import type { RemoteWork, RunIo } from "./types.js";

/** How long an aborted command has to end after TERM. */
const ABORT_GRACE_MS = 1_000;

/** What a command finds on the bastion. */
export interface Surroundings {
  readonly environment: Readonly<Record<string, string>>;
  /** A directory in front of the login's PATH, or several with colons between them. */
  readonly searchFirst: string | null;
}

/** @throws TokenfwdError E_USAGE, E_PTY_REFUSED, E_SSH */
export async function runCommand(
  transport: Transport,
  work: RemoteWork,
  { environment, searchFirst }: Surroundings,
  io: RunIo,
): Promise<ExitStatus> {
  const line = work === "shell" ? remoteShell(environment, searchFirst) : remoteCommand(work, environment, searchFirst);
  const outcome = await transport.exec(line, io.pty === null ? {} : { pty: io.pty });
  if (!outcome.ok) {
    if (outcome.refused === "pty") {
      throw new TokenfwdError("E_PTY_REFUSED", "the bastion gives no terminal (PermitTTY no, or no-pty for this key)", {
        hint: work === "shell" ? "a shell needs one; a single command does not: -T -- CMD" : "run the command without one: -T",
      });
    }
    throw new TokenfwdError(
      outcome.refused === "closed" ? "E_SSH_LOST" : "E_SSH",
      `the bastion did not start the command: ${outcome.reason}`,
      {
        hint: "MaxSessions in the bastion's sshd_config limits how many commands run on one connection",
      },
    );
  }
  const channel = outcome.value;
  io.onResize?.((size) => channel.resize(size));
  let timer: NodeJS.Timeout | undefined;
  let abort: () => void = () => {};
  // sshd forwards no signal to a session of root, and answers a close only when the command has ended: stop waiting.
  const abandoned = new Promise<ExitStatus>((resolve) => {
    abort = () => {
      channel.signal("TERM");
      timer = setTimeout(() => {
        channel.close();
        resolve({ code: null, signal: null });
      }, ABORT_GRACE_MS);
    };
  });
  if (io.signal.aborted) abort();
  io.signal.addEventListener("abort", abort, { once: true });

  const fromStdin = (chunk: Buffer) => {
    if (!channel.stream.write(chunk)) io.stdin.pause();
  };
  const onDrain = () => io.stdin.resume();
  const onEnd = () => channel.stream.end();
  io.stdin.on("data", fromStdin);
  io.stdin.once("end", onEnd);
  if (io.stdin.readableEnded) onEnd();
  channel.stream.on("drain", onDrain);
  channel.stream.on("error", () => {});
  const copied = Promise.all([copy(channel.stream, io.stdout), copy(channel.stderr, io.stderr)]);
  try {
    const finished = channel.exit.then(async (status) => {
      await copied;
      return status;
    });
    return await Promise.race([finished, abandoned]);
  } finally {
    clearTimeout(timer);
    io.signal.removeEventListener("abort", abort);
    io.stdin.off("data", fromStdin);
    io.stdin.off("end", onEnd);
    io.stdin.pause();
  }
}

/** Copies without ending the target; resolves when the source has ended. A target that fails is drained into nothing. */
function copy(source: Readable, target: Writable): Promise<void> {
  return new Promise((resolve) => {
    let broken = false;
    const onError = () => {
      broken = true;
      source.resume();
    };
    const resume = () => source.resume();
    target.on("error", onError);
    source.on("data", (chunk: Buffer) => {
      if (!broken && !target.write(chunk)) {
        source.pause();
        target.once("drain", resume);
      }
    });
    const done = () => {
      target.off("error", onError);
      target.off("drain", resume);
      resolve();
    };
    source.once("end", done);
    source.once("close", done);
  });
}
