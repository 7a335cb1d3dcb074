/*
 * `choria sign-request` as commander sees it: its options and its help. It must never promise what the command does not do.
 */
import { DEFAULT_MAX_TTL_SECONDS, MOST_TTL_SECONDS } from "../../choria/limits.js";
import { STATUS } from "../help.js";
import type { AddChoriaCommand } from "./program.js";
import { type RawTokenAccess, withTokenAccess } from "./token-access.js";

/** The options as commander hands them over. */
export interface RawSignRequestOptions extends RawTokenAccess {
  readonly maxTtl?: string;
}

const HELP = `
What happens:
  stdin is read to its end: one choria:request:1, as Choria's clients make it. Its caller becomes
  choria=CN of the token's certificate, and the workstation shows collective, agent, action, filter
  and caller before it signs. stdout gets the choria:secure:request:1, one line of JSON, when all went
  well, and nothing otherwise. A request is signed once, within 60 s of its time.

Example:
  tokenfwd choria sign-request < request.json > secure.json

${STATUS}
`;

/** Adds it to the group. */
export const addSignRequest: AddChoriaCommand = (group, start) => {
  const command = group.command("sign-request").description("sign one Choria request from stdin; the secure request goes to stdout");
  withTokenAccess(command.usage("[options] < REQUEST > SECURE_REQUEST"))
    .option("--max-ttl <seconds>", `the longest ttl that is signed (default ${DEFAULT_MAX_TTL_SECONDS}, at most ${MOST_TTL_SECONDS})`)
    .addHelpText("after", HELP)
    .action((options: RawSignRequestOptions) =>
      start.alone("sign-request", async () => (await import("./sign-request.js")).runSignRequest(options)),
    );
};
