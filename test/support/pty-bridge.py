"""Runs a command under a pseudo-terminal of its own and bridges it to stdin and stdout.

    python3 pty-bridge.py ROWS COLUMNS COMMAND [ARGUMENT ...]

The terminal is the command's controlling one, so /dev/tty works in it. When the command has ended, one line of JSON
goes to stderr: its exit status or signal, and whether the terminal was left with echo and line editing. End of stdin
hangs the terminal up.
"""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios


def main() -> None:
    rows, columns, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    # The other end stays open here, so that the settings can be read after the command has closed its own.
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    pid = os.fork()
    if pid == 0:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        os.closerange(3, 256)
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    sources = [master, 0]
    status = None
    while True:
        ready = select.select(sources, [], [], 0.02)[0]
        if 0 in ready:
            data = os.read(0, 65536)
            if data:
                os.write(master, data)
            else:
                sources.remove(0)
                if status is None:
                    os.kill(pid, 1)
        if master in ready:
            os.write(1, os.read(master, 65536))
            continue
        if status is None:
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                status = code
                continue
        else:
            break
    flags = termios.tcgetattr(slave)[3]
    result = {
        "exitCode": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "echo": bool(flags & termios.ECHO),
        "lineEditing": bool(flags & termios.ICANON),
    }
    os.write(2, json.dumps(result).encode() + b"\n")


main()
