/*
 * Puts our own program on the bastion for the life of a connection: looks for a Node that can run it, sends it, has its sum compared
 * there and compares it here, and sees it run. It must never leave CMD to find out that the program does not work.
 */
import { createHash } from "node:crypto";
import { TokenfwdError } from "../../base/errors.js";
import { printable, shellWord } from "../../base/printable.js";
import type { Answer, Helper } from "./helper.js";
import type { Place, Probe } from "./place.js";
import { LEAST_NODE, TOOL_NAME } from "./tools-script.js";

/** Our program as it lies on the bastion. */
export interface Tools {
  /** What belongs on the PATH there. */
  readonly directory: string;
  /** The program in it. */
  readonly path: string;
  /** What runs it: an absolute path, and `v20.1.2`. */
  readonly node: string;
  readonly nodeVersion: string;
  /** How much was sent. */
  readonly bytes: number;
}

const CHARACTERS_A_LINE = 1_000;
const INSTALL = "or have tokenfwd-bastion.cjs installed there as tokenfwd and leave out --tools";

/** What was found before anything is made. */
export type ToolsNode = Pick<Tools, "node" | "nodeVersion">;

/** Looks for Node on the PATH that CMD will have. @throws TokenfwdError E_TOOLS */
export async function findToolsNode(helper: Helper): Promise<ToolsNode> {
  const answer = await asking(helper.request("findnode"));
  const node = answer.get("node")?.[0];
  const nodeVersion = answer.get("nodever")?.[0];
  if (node !== undefined && nodeVersion !== undefined) return { node: printable(node), nodeVersion };
  // `/bin` is `/usr/bin` on most systems: a line each would say the same.
  const found = (answer.get("found") ?? []).map((line) => {
    const [version, ...path] = line.split(" ");
    return `${printable(path.join(" "))} ${version === "unknown" ? "does not say its version" : `is ${version}`}`;
  });
  throw failed(
    found.length === 0
      ? "neither node nor nodejs is on the PATH there"
      : `none of what is called node on the PATH there is ${LEAST_NODE} or newer: ${found.join(", ")}`,
    `install Node ${LEAST_NODE} or newer there, where "ssh DEST env" shows a PATH to it, ${INSTALL}`,
  );
}

/**
 * Sends the program into our directory, which the helper must own, and tries it.
 * @throws TokenfwdError E_TOOLS; what is there by then goes with the directory
 */
export async function sendTools(helper: Helper, probe: Probe, place: Place, node: ToolsNode, bundle: Buffer): Promise<Tools> {
  const directory = `${probe.runtimeDir}/tokenfwd/${place.name}/bin`;
  if (directory.includes(":")) {
    throw failed(
      `a PATH cannot name ${printable(directory)}: it holds a colon`,
      `set XDG_RUNTIME_DIR there to a directory without one, ${INSTALL}`,
    );
  }
  const sum = createHash("sha256").update(bundle).digest("hex");
  const text = `${(bundle.toString("base64").match(new RegExp(`.{1,${CHARACTERS_A_LINE}}`, "g")) ?? []).join("\n")}\n`;
  const answer = await asking(helper.send(text, "put", String(text.length), sum));
  checkPut(answer, directory, sum);
  return { directory, path: `${directory}/${TOOL_NAME}`, ...node, bytes: bundle.length };
}

function checkPut(answer: Answer, directory: string, sum: string): void {
  const first = (key: string) => answer.get(key)?.[0] ?? "";
  const where = printable(directory);
  const room = `on the bastion: df -h ${shellWord(directory.slice(0, -"/bin".length))}; some free megabytes are needed`;
  const why = first("fail");
  if (why === "full") throw failed(`there is no room in ${where} (a full disk, or a quota)`, room);
  if (why === "write") throw failed(`${where} cannot be written to`, room);
  if (why !== "" && why !== "sum") throw failed(`${where} is not ours alone (${why})`, `on the bastion: ls -ld ${shellWord(directory)}`);
  if (first("sum") !== sum) {
    throw failed(
      `what arrived there is not what was sent: its SHA-256 is ${first("sum") || "unknown"}, not ${sum}`,
      "connect again; if it stays, something on the bastion or its disk changes data",
    );
  }
  const status = first("run");
  const said = printable(first("said").trim());
  if (status === "126") {
    throw failed(
      `no program may be started from ${where} (a noexec mount, or a rule of the system): ${said}`,
      `set XDG_RUNTIME_DIR there to a directory of yours with mode 0700 on a mount without noexec, ${INSTALL}`,
    );
  }
  if (status !== "0") {
    throw failed(
      `the program does not run there: it ended with ${status === "" ? "nothing" : status} and said ${said || "nothing"}`,
      `try on the bastion: ssh DEST node --version; ${INSTALL}`,
    );
  }
}

function failed(what: string, hint: string): TokenfwdError {
  return new TokenfwdError("E_TOOLS", `the tools cannot be put on the bastion: ${what}`, { hint });
}

/** The helper's own failure in this step is this step's: a Node that hangs, a terminal that loses data. */
async function asking(answer: Promise<Answer>): Promise<Answer> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof TokenfwdError && error.code === "E_REMOTE_SHELL")
      throw failed(error.message, `connect without --tools to see whether it is they, ${INSTALL}`);
    throw error;
  }
}
