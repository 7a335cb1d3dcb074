/*
 * Looks at files on the bastion as CMD would find them, and puts small files there for CMD. It must never believe more than fits the
 * limits that it was given, and never send a byte of a file as part of a command line.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable, shellWord } from "../../base/printable.js";
import { BLOCK_BYTES, COMMAND_DIRECTORY, COMMAND_FILE_NAME } from "./command-files-script.js";
import type { Helper } from "./helper.js";
import type { Place, Probe } from "./place.js";

/** What a program that the log-in starts would find; null for what is not set or not there. */
export interface LoginView {
  readonly home: string | null;
  readonly directory: string | null;
  readonly user: string | null;
  /** The first program of the name on the log-in's PATH. */
  readonly program: string | null;
}

/** The bastion's files, through the helper. All throw TokenfwdError E_REMOTE_SHELL where it does not answer as it should. */
export interface BastionFiles {
  login(program: string): Promise<LoginView>;
  /** Which of the paths lead to a file that can be read, and which to something else; one question for all. */
  present(paths: readonly string[]): Promise<{ readonly files: ReadonlySet<string>; readonly others: ReadonlySet<string> }>;
  /** The whole file; null where there is none that can be read. @throws TokenfwdError E_CONFIG: longer than `maxBytes` */
  read(path: string, maxBytes: number): Promise<Buffer | null>;
}

/** A file for CMD. `name` is letters with at most one dot in them. One of mode 700 is a program that answers TRY_WORD with 0. */
export interface CommandFile {
  readonly name: string;
  readonly mode: "600" | "700";
  readonly text: string;
}

const MOST_PATHS = 100;

/** Reads through this helper. */
export function bastionFiles(helper: Helper): BastionFiles {
  return {
    async login(program) {
      const answer = await helper.request("login", program);
      const value = (key: string) => answer.get(key)?.[0] || null;
      return { home: value("home"), directory: value("cwd"), user: value("user"), program: value("program") };
    },
    async present(paths) {
      if (paths.length > MOST_PATHS || paths.some((path) => /[\0\n\r]/.test(path)))
        throw new TokenfwdError("E_BUG", "these paths cannot be asked for");
      const answer = await helper.send(paths.map((path) => `${path}\n`).join(""), "present", String(paths.length));
      const chosen = (key: string) => new Set((answer.get(key) ?? []).map((index) => paths[Number(index)] ?? ""));
      return { files: chosen("present"), others: chosen("unreadable") };
    },
    async read(path, maxBytes) {
      if (/[\0\n\r]/.test(path)) return null;
      const blocks: Buffer[] = [];
      for (let have = 0; ; ) {
        const answer = await helper.send(`${path}\n`, "block", String(blocks.length));
        if (answer.has("fail")) return null;
        // An answer without a size would have no end either.
        const size = Number(answer.get("size")?.[0] ?? Number.NaN);
        if (Number.isNaN(size)) throw unsteady(path);
        if (size > maxBytes)
          throw new TokenfwdError("E_CONFIG", `${printable(path)} on the bastion is ${size} bytes long`, tooLong(maxBytes));
        const bytes = Buffer.from(answer.get("hex")?.[0] ?? "", "hex");
        blocks.push(bytes);
        have += bytes.length;
        if (have === size) return Buffer.concat(blocks);
        if (have > size || bytes.length !== BLOCK_BYTES) throw unsteady(path);
      }
    },
  };
}

function tooLong(maxBytes: number) {
  return { hint: `at most ${maxBytes} are read` };
}

function unsteady(path: string): TokenfwdError {
  return new TokenfwdError("E_REMOTE_SHELL", `${printable(path)} on the bastion cannot be read as it is`, {
    hint: `on the bastion: od -An -v -tx1 ${shellWord(path)}; try again if somebody is writing to it`,
  });
}

/**
 * Puts the files into a directory of their own in ours, which the helper must own, and answers its path. They go with the connection.
 * @throws TokenfwdError E_RUNTIME_DIR, E_REMOTE_SHELL
 */
export async function keepFiles(helper: Helper, probe: Probe, place: Place, files: readonly CommandFile[]): Promise<string> {
  const directory = commandDirectory(probe, place);
  // What a dead connect left.
  await helper.request("drop");
  for (const { name, mode, text } of files) {
    if (!COMMAND_FILE_NAME.test(name)) throw new TokenfwdError("E_BUG", `${name} is no name for a file of CMD`);
    const answer = await helper.send(text, "keep", name, mode, String(Buffer.byteLength(text)));
    if (answer.get("keep")?.[0] !== "ok") {
      throw new TokenfwdError("E_RUNTIME_DIR", `${printable(directory)} on the bastion cannot be written to`, {
        hint: `on the bastion: ls -ld ${shellWord(directory)}; df -h ${shellWord(probe.runtimeDir)}`,
      });
    }
    // Where it cannot be started a shell would take the next of that name without a word.
    if (mode === "700" && answer.get("run")?.[0] !== "0") {
      throw new TokenfwdError(
        "E_RUNTIME_DIR",
        `no program may be started from ${printable(directory)} on the bastion (a noexec mount, or a rule of the system)`,
        {
          hint: "set XDG_RUNTIME_DIR there to a directory of yours with mode 0700 on a mount without noexec",
        },
      );
    }
  }
  return directory;
}

/** Where the files will be, whether they are there or not. @throws TokenfwdError E_RUNTIME_DIR: a PATH cannot name it */
export function commandDirectory(probe: Probe, place: Place): string {
  const directory = `${probe.runtimeDir}/tokenfwd/${place.name}/${COMMAND_DIRECTORY}`;
  if (!directory.includes(":")) return directory;
  throw new TokenfwdError("E_RUNTIME_DIR", `a PATH cannot name ${printable(directory)}: it holds a colon`, {
    hint: "set XDG_RUNTIME_DIR on the bastion to a directory without one",
  });
}
