/*
 * `choria relay` as commander sees it: its options and its help. It must never promise what the command does not do.
 */
import { STATUS } from "../help.js";
import type { AddChoriaCommand } from "./program.js";
import { type RawTokenAccess, withTokenAccess } from "./token-access.js";

/** The options as commander hands them over. */
export interface RawRelayOptions extends RawTokenAccess {
  readonly listen?: string;
  readonly broker?: readonly string[];
  readonly srv?: string;
  readonly ca?: string;
  readonly loginFile?: string;
}

const HELP = `
What happens:
  The token signs one TLS handshake with the first broker that answers, whose certificate is checked
  first: touch the token when it blinks. Then the relay listens, and one line stands on stdout:
  { "v": 1, "listen": "127.0.0.1:PORT", "user": "..." }. It runs until Ctrl-C or SIGTERM.
  A client speaks plain NATS to it and must say the login before anything else happens; each
  connection to the broker resumes the first one's TLS session, and costs no signature. The session
  is forgotten when the token is pulled and when the relay ends.

The login file holds user:password on one line, with mode 0600; it is made where it is missing.

Examples:
  tokenfwd choria relay --broker broker.example.net --ca ca.pem --login-file login
  tokenfwd choria relay --broker one.example.net:4222,two.example.net:4222 --ca ca.pem \\
      --login-file login --listen 127.0.0.1:14222

Choria then wants, beside INSECURE_DISABLE_TLS=true in its environment (TLS is the relay's):
  plugin.choria.middleware_hosts = nats://127.0.0.1:PORT
  plugin.nats.user = USER
  plugin.nats.pass = PASSWORD

OPENSSL_ENGINES and PKCS11_MODULE_PATH say where the engine and p11-kit-client.so are, if they are
not where the system has them.

${STATUS}
`;

const another = (word: string, words: readonly string[] | undefined): readonly string[] => [...(words ?? []), word];

/** Adds it to the group. */
export const addRelay: AddChoriaCommand = (group, start) => {
  const command = group.command("relay").description("plain NATS on this machine, TLS with the token's key to Choria's brokers");
  withTokenAccess(command.usage("[options] --broker HOST:PORT --ca FILE --login-file FILE"))
    .option("--broker <host:port>", "a broker; several with commas, or the option again (port 4222 unless given)", another)
    .option("--srv <domain>", "in its place: the brokers that this domain's SRV records name, as choria looks for them")
    .option("--ca <file>", "PEM file of the CA whose brokers are trusted, and no others")
    .option("--login-file <file>", "user:password that clients must say; made if missing")
    .option("--listen <host:port>", "a loopback address and port (default 127.0.0.1:0, any free port)")
    .addHelpText("after", HELP)
    .action((options: RawRelayOptions) => start.alone("relay", async () => (await import("./relay.js")).runRelay(options)));
};
