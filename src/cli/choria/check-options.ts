/*
 * `choria check` as commander sees it: its options and its help. It must never promise what the command does not do.
 */
import { STATUS } from "../help.js";
import type { AddChoriaCommand } from "./program.js";

/** The options as commander hands them over. */
export interface RawCheckOptions {
  readonly config?: string;
  readonly json?: boolean;
  readonly socket?: string;
}

const HELP = `
What happens:
  The configuration that choria would read here is found in choria's own order, and read as choria
  reads it. Whatever is wrong in it, in the files that it names and with the token's certificate is
  listed, each with the line that mends it. Nothing is changed, no broker is asked, no key is used.
  Without a token in reach the rest is looked at. Errors give the exit status 1, warnings and notes 0.

Example:
  tokenfwd connect bastion --tools -- tokenfwd choria check

${STATUS}
`;

/** Adds it to the group. */
export const addCheck: AddChoriaCommand = (group, start) => {
  group
    .command("check")
    .description("say what is wrong in choria's client configuration, and what mends it")
    .option("--config <file>", "the configuration (default: the one that choria would take)")
    .option("--json", "one JSON document on stdout")
    .option("--socket <path>", "the agent's socket (default: found by itself)")
    .addHelpText("after", HELP)
    .action((options: RawCheckOptions) => start.alone("check", async () => (await import("./check.js")).runCheck(options)));
};
