/*
 * `choria config` as commander sees it: its options and its help. It must never promise what the command does not do.
 */
import { STATUS } from "../help.js";
import type { AddChoriaCommand } from "./program.js";

/** The options as commander hands them over. */
export interface RawConfigOptions {
  readonly mode?: string;
  readonly name?: string;
  readonly broker?: readonly string[];
  readonly ca?: string;
  readonly socket?: string;
}

const HELP = `
What happens:
  A client's configuration for a stock choria goes to stdout, with all else that belongs to it in
  comments: what to start, what to export, and the line for every server. Nothing is written anywhere.
  Brokers, CA and collectives are those of the configuration that choria has here now, and the name is
  that of the token's certificate, where these can be seen.

  relay         our signer and our relay: no key, certificate or CA of yours on this machine
  bastion-tls   our signer; TLS to the broker with a certificate of this machine's own
  pkcs11        choria's own pkcs11 provider, on p11-kit's client module, behind our relay

  docs/guide/choria.md says what each of them trusts, and what it lets others see.

Example:
  tokenfwd choria config --mode relay > choriarc.new   # then look at it, and mv it to ~/.choriarc

${STATUS}
`;

const another = (word: string, words: readonly string[] | undefined): readonly string[] => [...(words ?? []), word];

/** Adds it to the group. */
export const addConfig: AddChoriaCommand = (group, start) => {
  group
    .command("config")
    .description("print a client's configuration for choria, and what else it needs")
    .option("--mode <mode>", "relay (default), bastion-tls or pkcs11")
    .option("--name <cn>", "the CN of the token's certificate (default: looked up on the token)")
    .option("--broker <host:port>", "a broker, repeatable (default: those of your configuration)", another)
    .option("--ca <file>", "the file with Choria's CA (default: that of your configuration)")
    .option("--socket <path>", "the agent's socket (default: found by itself)")
    .addHelpText("after", HELP)
    .action((options: RawConfigOptions) => start.alone("config", async () => (await import("./config.js")).runConfig(options)));
};
