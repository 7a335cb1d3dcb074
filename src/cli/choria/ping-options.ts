/*
 * `choria ping` as commander sees it: its options and its help. It must never promise what the command does not do.
 */
import { STATUS } from "../help.js";
import type { AddChoriaCommand } from "./program.js";
import { type RawTokenAccess, withTokenAccess } from "./token-access.js";

/** The options as commander hands them over. */
export interface RawPingOptions extends RawTokenAccess {
  readonly choriaConfig?: string;
  readonly ca?: string;
  readonly broker?: readonly string[];
  readonly collective?: string;
  readonly timeout?: string;
  readonly expect?: string;
  readonly agent?: readonly string[];
  readonly class?: readonly string[];
  readonly fact?: readonly string[];
  readonly identity?: readonly string[];
  readonly json?: boolean;
}

const HELP = `
What happens:
  Every server of the collective is asked whether it is there, by one request that the token signs and
  one connection that its key opens. No choria is needed here: only your client configuration, with the
  brokers and the CA, or --broker and --ca. The time for answers begins when the request is sent, so a
  touch costs none of it. Each server that answers is a line on stdout.

  Servers do not sign their answers: an answer that is whole, is for this request and is its sender's
  first is counted, and that it came from that server is its own word.

Examples:
  tokenfwd choria ping
  tokenfwd choria ping -A puppet -F os.family=Debian --timeout 5
  tokenfwd choria ping --expect 12 --json

Exit status:
  0 when somebody answered (with --expect: as many as that), 1 when not, 50 when it could not be asked.

${STATUS}
`;

const another = (word: string, words: readonly string[] | undefined): readonly string[] => [...(words ?? []), word];

/** Adds it to the group. */
export const addPing: AddChoriaCommand = (group, start) => {
  const command = group.command("ping").description("ask which servers are there, with the key on the token and without choria");
  withTokenAccess(command)
    .option("--choria-config <file>", "your client configuration (default: the one that choria would find)")
    .option("--ca <file>", "the CA that the broker is checked against (default: the configuration's)")
    .option("--broker <host:port>", "a broker, repeatable (default: the configuration's)", another)
    .option("--collective <name>", "the collective that is asked (default: the configuration's main one)")
    .option("--timeout <seconds>", "how long answers are waited for (default: the configuration's discovery_timeout)")
    .option("--expect <number>", "end as soon as so many have answered")
    .option("-A, --agent <name>", "only servers with this agent, repeatable", another)
    .option("-C, --class <name>", "only servers with this class, repeatable", another)
    .option("-F, --fact <fact=value>", "only servers with this fact, repeatable", another)
    .option("-I, --identity <name>", "only this server, repeatable", another)
    .option("--json", "one JSON document on stdout")
    .addHelpText("after", HELP)
    .action((options: RawPingOptions) => start.alone("ping", async () => (await import("./ping.js")).runPing(options)));
};
