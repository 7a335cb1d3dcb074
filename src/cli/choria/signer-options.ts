/*
 * `choria signer` as commander sees it: its options and its help. It must never promise what the command does not do.
 */
import { DEFAULT_MAX_TTL_SECONDS, MOST_TTL_SECONDS } from "../../choria/limits.js";
import { STATUS } from "../help.js";
import type { AddChoriaCommand } from "./program.js";
import { type RawTokenAccess, withTokenAccess } from "./token-access.js";

/** The options as commander hands them over. */
export interface RawSignerOptions extends RawTokenAccess {
  readonly listen?: string;
  readonly maxTtl?: string;
  readonly secrets?: string;
}

const HELP = `
What happens:
  It listens on a port of this machine's loopback and speaks Choria's own remote-signer protocol there,
  until Ctrl-C. DIR gets the two secrets that a client needs (made 0700, files 0600; what is there from
  an earlier run is used again). The first line on stdout says where all that is:

  { "v": 1, "url": "http://127.0.0.1:PORT/choria/v1/sign", "tokenFile": "...", "seedFile": "..." }

For a choria on this machine, in its client configuration:
  plugin.security.provider = file
  plugin.choria.security.request_signer.url = URL
  plugin.choria.security.request_signer.token_file = TOKENFILE
  plugin.choria.security.request_signer.seed_file = SEEDFILE
  discovery_timeout = 10
The last line is for a person who may have to touch the token within that time.

The signer signs requests alone. TLS to the broker is the client's own affair, with a certificate of
this machine that is on no list of callers.

Other users of this machine can reach the port. Without the two files they get nothing, and learn
nothing; root, and whoever has your account, can read them.

Example:
  tokenfwd choria signer --secrets "$XDG_RUNTIME_DIR/choria-signer"

${STATUS}
`;

/** Adds it to the group. */
export const addSigner: AddChoriaCommand = (group, start) => {
  const command = group.command("signer").description("serve Choria's remote-signer protocol on loopback, signed by the token");
  withTokenAccess(command.usage("[options] --secrets DIR"))
    .option("--secrets <dir>", "where the client's two secrets are, or are made (needed)")
    .option("--listen <host:port>", "the loopback address (default: 127.0.0.1 and a free port)")
    .option("--max-ttl <seconds>", `the longest ttl that is signed (default ${DEFAULT_MAX_TTL_SECONDS}, at most ${MOST_TTL_SECONDS})`)
    .addHelpText("after", HELP)
    .action((options: RawSignerOptions) => start.alone("signer", async () => (await import("./signer.js")).runSigner(options)));
};
