/*
 * The text of `tokenfwd export --ssh-config`: a block for ssh_config, shell lines, and what is lost. Each line can be typed as it stands.
 * It must never hold a path or a name that a shell or ssh would read as something else.
 */
import { shellWord } from "../../base/printable.js";
import { p11KitAddress } from "../../wire/p11kit/address.js";

export interface ByHand {
  /** As typed. */
  readonly destination: string;
  /** The Host of the block. */
  readonly alias: string;
  /** `Keyword value` lines that make the alias lead where the destination leads. */
  readonly settings: readonly string[];
  /** The ssh configuration file that was named, null for the usual one. */
  readonly configFile: string | null;
  readonly modulePath: string;
  readonly uri: string;
  /** Where p11-kit server listens on the workstation; plain characters only. */
  readonly localSocket: string;
  /** The runtime directory on the bastion; plain characters only. */
  readonly runtimeDir: string;
}

/** Characters that neither ssh_config nor a shell reads as anything else. */
const PLAIN_PATH = /^\/[A-Za-z0-9._/+@-]+$/;

/** True for an absolute path that may stand in the text as it is. */
export function isPlainPath(path: string): boolean {
  return PLAIN_PATH.test(path);
}

/** The name of a Host for a destination as ssh takes it. */
export function aliasOf(destination: string): string {
  const host = destination.replace(/^ssh:\/\//i, "").replace(/^.*@/, "");
  return `${host.replace(/[^A-Za-z0-9.-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "") || "bastion"}-token`;
}

/** The whole text, ending in a newline. */
export function byHandText(given: ByHand): string {
  const { alias, localSocket } = given;
  const remoteDir = `${given.runtimeDir}/p11-kit`;
  const remoteSocket = `${remoteDir}/pkcs11`;
  const localDir = localSocket.slice(0, localSocket.lastIndexOf("/"));
  const ssh = given.configFile === null ? "ssh" : `ssh -F ${shellWord(given.configFile)}`;
  const lines = [
    `# The token on ${given.destination} by hand, with stock p11-kit and ssh and without tokenfwd.`,
    "",
    `# 1. Once: put this into ${given.configFile ?? "~/.ssh/config"}, above every "Host *".`,
    `Host ${alias}`,
    ...given.settings.map((setting) => `  ${setting}`),
    `  RemoteForward ${remoteSocket} ${localSocket}`,
    "  ExitOnForwardFailure yes",
    "",
    "# 2. Each time, on the workstation, in one shell (in fish, csh or tcsh type sh first). The first ssh takes away the socket that the",
    "#    last connection has left: sshd does it only where its own sshd_config says StreamLocalBindUnlink yes. The second is the",
    "#    connection: programs on the bastion find the token while it lasts, in other sessions too. Its terminal is needed: without one",
    "#    sshd delays small packets by some 40 ms each.",
    `mkdir -p -m 700 ${localDir}`,
    // p11-kit prints csh for whose login shell is one, whatever shell asks; 0.24 does so in spite of --sh.
    `eval "$(SHELL=/bin/sh p11-kit server --name ${localSocket} --provider ${shellWord(given.modulePath)} ${shellWord(given.uri)})"`,
    `${ssh} -n -o ClearAllForwardings=yes ${alias} "sh -c 'umask 077; mkdir -p ${remoteDir} && rm -f ${remoteSocket}'" &&`,
    `  ${ssh} -t ${alias}`,
    'kill "$P11_KIT_SERVER_PID"',
    "unset P11_KIT_SERVER_ADDRESS P11_KIT_SERVER_PID",
    "",
    "# 3. On the bastion, where a program does not find the token by itself (XDG_RUNTIME_DIR is not set, as under su). In csh and tcsh it",
    "#    is setenv P11_KIT_SERVER_ADDRESS and the address:",
    `export P11_KIT_SERVER_ADDRESS='${p11KitAddress(remoteSocket)}'`,
    "",
    "# What tokenfwd connect does and this does not:",
    "#  - the PIN is typed on the bastion and crosses the connection; here it is asked for on the workstation",
    "#  - no policy: programs there may delete keys, change the PIN and initialise the token, and nothing shows what they do",
    '#  - nothing says whether the token answers there; a socket that is left behind or taken shows as "No slots."',
    `#  - while that connection lasts, a second ${alias} fails: the path on the bastion is taken`,
    "#  - nothing ends p11-kit server when the shell is closed before the line with kill",
  ];
  return `${lines.join("\n")}\n`;
}
