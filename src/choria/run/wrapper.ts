/*
 * The program `choria` that stands first on CMD's PATH where nothing of ours runs: a POSIX sh text that starts the next choria with our
 * configuration, because no variable names one. It must never start itself, change a command line that names a configuration, or keep
 * a line of choria's from the person.
 *
 * The password is read from a file beside it, so that it is in no argument and in no environment but choria's.
 */

import { UNDOING_VARIABLES } from "./child-environment.js";
import { ALARMS } from "./log-lines.js";
import { WITHOUT_CONFIG } from "./words.js";

/** The files of the directory, all of it ours. */
export const WRAPPER_FILES = {
  wrapper: "choria",
  config: "client.conf",
  token: "signer.token",
  seed: "signer.seed",
  login: "login",
} as const;

/** The status of a failure of the wrapper itself: E_CHORIA's. */
const FAILED = 50;

/** One word for a shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** The content of the file `login`. Neither part may hold a space. */
export function loginFile(user: string, password: string): string {
  return `${user} ${password}\n`;
}

/**
 * The text of the wrapper that lies in `directory`; `commonName` is the caller's, without `choria=`, and `found` the choria that runs where
 * a PATH leads to none any more, as after a shell's start files.
 */
export function wrapperScript(directory: string, commonName: string, found: string): string {
  return `#!/bin/sh
# Made by tokenfwd connect --choria, and gone with the connection: runs the next choria on the PATH with the configuration beside it.
test "$1" != --tokenfwd-try || exit 0
d=${quoted(directory)}
say() { printf 'tokenfwd: %s\n' "$*" >&2; }
set -f
next=
ifs=$IFS; IFS=:
for p in $PATH; do
  case $p in "$d"|'') continue;; esac
  if test -f "$p/choria" && test -x "$p/choria"; then next=$p/choria; break; fi
done
IFS=$ifs
test -n "$next" || next=${quoted(found)}
test -x "$next" || { say "there is no choria on the PATH"; exit ${FAILED}; }
at=0 i=0 command=
for a do
  i=$((i + 1))
  case $a in --config|--config=*) exec "$next" "$@";; esac
  case $a in -*) ;; *) test $at -gt 0 || { at=$i; command=$a; };; esac
done
case $command in ''|${WITHOUT_CONFIG.join("|")}) exec "$next" "$@";; esac
test -r "$d/${WRAPPER_FILES.config}" || { say "the connection that made $d has ended"; exit ${FAILED}; }
# A choria.conf here or above is laid over every configuration, also over ours.
# Above as choria sees it, which believes PWD as a shell does.
w=$(pwd -L)
while :; do
  if test -e "$w/choria.conf"; then
    say "$w/choria.conf would override the configuration of this connection: run it in another directory, or move that file"
    exit ${FAILED}
  fi
  case $w in ''|/) break;; esac
  w=\${w%/*}
done
i=0
for a do
  i=$((i + 1))
  test $i -gt 1 || set --
  set -- "$@" "$a"
  test $i -ne $at || set -- "$@" --config "$d/${WRAPPER_FILES.config}"
done
read -r user password < "$d/${WRAPPER_FILES.login}"
unset ${UNDOING_VARIABLES.join(" ")}
start() {
  INSECURE_DISABLE_TLS=true MCOLLECTIVE_CERTNAME=${quoted(commonName)} \
    MCOLLECTIVE_NATS_USERNAME=$user MCOLLECTIVE_NATS_PASSWORD=$password exec "$next" "$@"
}
f=$d/err.$$
mkfifo -m 600 "$f" 2>/dev/null || start "$@"
# Open at both ends from now on: who reads must not wait for a choria that has ended before it came to write.
exec 4<>"$f" 5<"$f"
rm -f "$f"
{
  while IFS= read -r l || test -n "$l"; do
    case $l in
      *${quoted(ALARMS[0])}*|'{"component":'*${quoted(ALARMS[1])}*) ;;
      '{"component":'*'"level":"'*'"msg":"'*'","time":"'*)
        v=\${l#*'"level":"'}; m=\${l#*'"msg":"'}
        printf 'choria: %s: %s\n' "\${v%%'"'*}" "\${m%%'","'*}" >&2;;
      *) printf '%s\n' "$l" >&2;;
    esac
  done
} <&5 4>&- 5<&- &
lines=$!
# A signal that comes before it is known whom to send it to.
early=
for s in HUP INT TERM QUIT; do trap "early=$s" $s; done
# Not <&0, which is /dev/null by then where the shell runs something in the background.
exec 3<&0
start "$@" <&3 3<&- 2>&4 4>&- 5<&- &
child=$!
exec 3<&- 4>&- 5<&-
for s in HUP INT TERM QUIT; do trap "kill -$s $child 2>/dev/null" $s; done
# Some shells lose one that reaches a process of theirs right after it was made.
test -z "$early" || { kill -$early $child 2>/dev/null; sleep 1; kill -$early $child 2>/dev/null; }
while :; do
  wait $child
  status=$?
  kill -0 $child 2>/dev/null || break
done
# One that a signal interrupted was no answer yet.
if test $status -gt 128; then
  wait $child 2>/dev/null
  late=$?
  test $late -eq 127 || status=$late
fi
wait $lines
exit $status
`;
}
