/*
 * `choria run` as commander sees it: its options and its help. It must never promise what the command does not do.
 */
import { DEFAULT_MAX_TTL_SECONDS, MOST_TTL_SECONDS } from "../../choria/limits.js";
import type { AddChoriaCommand } from "./program.js";
import { type RawTokenAccess, withTokenAccess } from "./token-access.js";

/** The options as commander hands them over. */
export interface RawRunOptions extends RawTokenAccess {
  readonly choriaConfig?: string;
  readonly ca?: string;
  readonly broker: readonly string[];
  readonly maxTtl?: string;
  readonly ownDir?: boolean;
}

const HELP = `
What happens:
  Your own client configuration is found as choria finds it. The token makes the first connection to the
  broker, so that a touch is over before choria counts seconds. Then choria runs here with a configuration
  for this run alone: its requests are signed, and its connections to the broker made, with the token's
  key; no key, certificate or CA of yours needs to be here, but for the CA that the broker is checked
  against. Its output, terminal and signals are its own.

  What it talks to on this machine is guarded by secrets of this run. Whoever is root here, or you, can use
  them meanwhile, as they can use the token's socket.

  A choria.conf in this directory or above overrides every configuration: then nothing is run, or, with
  --own-dir, it runs in a directory of its own.

Examples:
  tokenfwd choria run -- req rpcutil ping
  tokenfwd choria run -- req puppet runonce -F country=mt --batch 10 --json
  tokenfwd connect bastion --tools -- tokenfwd choria run -- ping

Exit status:
  choria's own, 128+n when a signal ended it; 50 when the failure is ours, whose own status stands in the
  message. choria says 0 when nobody answered, and when the servers' rules said no: look at --json.
`;

/** Adds it to the group. */
export const addRun: AddChoriaCommand = (group, start) => {
  const command = group.command("run").description("run choria with the key on the token");
  withTokenAccess(command.usage("[options] -- CHORIA-ARGS..."))
    .option("--choria-config <file>", "your client configuration (default: the one that choria would find)")
    .option("--ca <file>", "the CA that the broker is checked against (default: the configuration's)")
    .option(
      "--broker <host:port>",
      "a broker, repeatable (default: the configuration's)",
      (word: string, all: string[]) => [...all, word],
      [],
    )
    .option("--max-ttl <seconds>", `the longest ttl that is signed (default ${DEFAULT_MAX_TTL_SECONDS}, at most ${MOST_TTL_SECONDS})`)
    .option("--own-dir", "run choria in a directory of its own")
    .addHelpText("after", HELP)
    .action((options: RawRunOptions) => start.withWords(async (words) => (await import("./run.js")).runChoria(options, words)));
};
