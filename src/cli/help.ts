/*
 * What --help says beyond the list of options: what happens, examples, exit status. Plain text at most 100 columns wide. It must
 * never promise what the command does not do.
 */

/** The exit statuses of every command. */
export const STATUS = `Exit status:
  0 ok   1 other   2 usage   3 configuration   10 ssh or log-in   11 host key   12 forward refused
  13 not verified   20 module, token or key not found   21 module fault
  30 PIN wrong, or nothing to ask it with   31 PIN locked   32 refused by a person or the policy
  40 agent   50 choria   70 a bug of ours   130 interrupted before ready`;

export const PROGRAM_HELP = `
Start here:
  tokenfwd connect bastion --module /usr/lib/x86_64-linux-gnu/libykcs11.so
      makes the token in this workstation usable where "ssh bastion" leads, until Ctrl-C.
  tokenfwd connect bastion --module MODULE -- ssh-keygen -D CLIENT
      runs one command there with the token, and returns its exit status. CLIENT is the bastion's
      p11-kit-client.so with its path, on Debian /usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so.
  tokenfwd doctor bastion --module MODULE
      says what is broken between the key and the program, and what mends it.
  tokenfwd keys
      lists the keys that an agent, here or on the other end of such a connection, lets be used;
      tokenfwd sign signs with one of them.

Without --module the one module of this machine that shows a token is used; tokenfwd token list says
what there is, and what is wrong with it.

Nothing is installed on the bastion, nobody is root, no file is edited. The PIN is asked for here.

${STATUS}

Environment:
  TOKENFWD_LOG=FILE      a diagnostic log, JSON lines, no secret in it
  TOKENFWD_PINENTRY=PROG the program that asks for the PIN where there is no terminal
`;

export const CONNECT_HELP = `
What happens:
  1. ssh -G says how to reach DEST; SSH is opened (host key always checked) and logged in.
  2. The module is loaded in a process of its own, and the key is chosen on public objects: the key
     of the only certificate, else you are asked, else --key says it. Then a socket is made in your
     runtime directory on the bastion, and a call from there proves that it leads back to this process.
  3. Programs there use it through the stock p11-kit-client.so. Each use of a private key is a line
     here.
  4. Ctrl-C, or the end of CMD, takes everything away again.

Examples:
  tokenfwd connect bastion --module MODULE
  tokenfwd connect ops@bastion -p 2222 --module MODULE --key 'pkcs11:id=%01;type=private'
  tokenfwd connect bastion --module MODULE --pin-source file:/run/user/1000/pin -- ./deploy.sh
  tokenfwd connect bastion --module MODULE --json | jq .event
  tokenfwd connect bastion --module MODULE --shell
  tokenfwd connect bastion --module MODULE --tools -- tokenfwd keys
  tokenfwd connect bastion --module MODULE --choria -- choria req rpcutil ping

With -- CMD: its stdio is yours, it gets a terminal exactly when stdin and stdout are terminals
(-t, -T decide otherwise), and its exit status is ours: 128+n when a signal ended it, 255 when the
failure is ours, whose own status stands in the message. CMD finds TOKENFWD_SOCKET and
P11_KIT_SERVER_ADDRESS, which stock programs read, in its environment. --shell does the same with
your login shell there, and needs a terminal.

With --tools the bastion also gets one file, which CMD finds as tokenfwd: its sign and keys speak to the
token without any PKCS#11 module there. The bastion's own Node (20 or newer) runs it; it is checked
before CMD starts, and goes with the connection.

With --stock the socket leads to stock p11-kit server, run and ended by this command: for what our
agent does not serve. The PIN then crosses the connection and no policy applies.

With --choria the choria that CMD finds has its requests signed here, and TLS to the broker made here,
with the token's key. Your own client configuration there is read as choria would, and kept but for
brokers and keys; a small directory with a wrapper, secrets of this connection and two ports on the
bastion's loopback are all that is there, and go with it. The broker is reached through the bastion,
whose sshd must allow TCP forwarding; where it does not, --tools -- tokenfwd choria run -- ... does it.

${STATUS}
`;

export const AGENT_RUN_HELP = `
What happens:
  The module is loaded in a process of its own and served on a Unix socket of mode 0600: --socket,
  else $TOKENFWD_AGENT, else $XDG_RUNTIME_DIR/tokenfwd/agent.sock. stdout gets the line that a shell
  evaluates to find it; SIGTERM or Ctrl-C ends it.

Examples:
  tokenfwd agent run --module MODULE
  P11_KIT_SERVER_ADDRESS=unix:path=SOCKET pkcs11-tool --module CLIENT -O
      CLIENT: on Debian /usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so
  tokenfwd agent run --module MODULE --policy read --socket /run/user/1000/inventory/p11.sock

${STATUS}
`;

export const DOCTOR_HELP = `
What happens:
  Each thing between the key and the program is looked at in order: Node.js and the native addon, the
  module, the token, the key and its certificate; with a destination also the way to the bastion and
  everything there, as connect would do it. What needs a broken thing is not reached; the rest goes on.
  Nothing is changed, and what was made is taken away. It takes a command line of connect as it is;
  CMD is not run.

Marks: \u2713 passed   ! works, and something should be mended   \u2717 failed   - not reached
Below what failed stands what mends it: a command, or the sentence to send to somebody.
docs/troubleshooting.md explains each. With --report FILE the same goes into one new file, without PINs,
keys, environment or user names; it is shown first.

On a bastion, under tokenfwd connect or with --socket, that side is looked at instead.

Examples:
  tokenfwd doctor
  tokenfwd doctor bastion --module MODULE
  tokenfwd doctor bastion --module MODULE --pin-source file:/run/user/1000/pin
  tokenfwd doctor bastion --json | jq '.checks[] | select(.status == "fail")'

Exit status: that of the first check that failed, 0 when none did; warnings do not count.

${STATUS}
`;

export const EXPORT_HELP = `
What happens:
  ssh says how to reach DEST and logs in once to ask for the runtime directory there. stdout gets a Host
  block for ssh_config and the lines to type on both sides; nothing of it is run and nothing is written.

Example:
  tokenfwd export --ssh-config bastion --module MODULE

${STATUS}
`;

export const TOKEN_LIST_HELP = `
What happens:
  Each module that p11-kit is configured with, and OpenSC, ykcs11, tpm2 and SoftHSM where they usually
  lie, is loaded in a process of its own, one at a time, for at most some seconds. Nobody logs in. Not
  loaded is what others could have written, and what leads elsewhere; the list says which and why.

Exit status: 0 at least one token can be used   2 usage   20 none   130 interrupted
`;
