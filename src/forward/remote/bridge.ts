/*
 * Reaches a Unix socket on the bastion through a program that is already there, where sshd refuses to open it for us.
 * It must never be used while direct-streamlocal works: it costs a session and a process.
 */
import type { Duplex } from "node:stream";
import type { Transport } from "../transport.js";
import { remoteCommand } from "./command.js";

/** The programs that can do it, in order of preference, as the probe names them. */
export type BridgeTool = "nc" | "socat" | "perl" | "python3";

const PERL = `use IO::Socket::UNIX; use IO::Select; $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1; $l = IO::Select->new($s, *STDIN);
while (@r = $l->can_read) { for $f (@r) { $n = sysread $f, $b, 65536; if (!$n) { exit 0 if $f == $s; $l->remove($f); shutdown $s, 1; next }
$t = $f == $s ? *STDOUT : $s; for ($o = 0; $o < $n;) { $w = syswrite $t, $b, $n - $o, $o; exit 1 unless $w; $o += $w } } }`;

const PYTHON = `import os, select, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); w = [s, 0]
while True:
    for f in select.select(w, [], [])[0]:
        if f is s:
            b = s.recv(65536)
            if not b: sys.exit(0)
            while b: b = b[os.write(1, b):]
        else:
            b = os.read(0, 65536)
            if b: s.sendall(b)
            else: w.remove(0); s.shutdown(socket.SHUT_WR)`;

function argvFor(tool: BridgeTool, path: string): string[] | null {
  switch (tool) {
    case "nc":
      return ["nc", "-U", path];
    case "socat":
      // socat reads these characters of an address itself.
      return /[:,!"'\\({[]/.test(path) ? null : ["socat", "-", `UNIX-CONNECT:${path}`];
    case "perl":
      return ["perl", "-e", PERL, path];
    case "python3":
      return ["python3", "-c", PYTHON, path];
  }
}

/** A connection to the socket, or a printable reason why there is none. Nothing is sent yet. */
export async function openBridge(
  transport: Transport,
  tool: BridgeTool,
  path: string,
): Promise<{ readonly stream: Duplex } | { readonly reason: string }> {
  const argv = argvFor(tool, path);
  if (argv === null) return { reason: `${tool} cannot take this path` };
  const outcome = await transport.exec(remoteCommand(argv));
  if (!outcome.ok) return { reason: outcome.reason };
  outcome.value.stderr.resume();
  return { stream: outcome.value.stream };
}
