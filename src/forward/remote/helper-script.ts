/*
 * The POSIX sh text of the helper: the one shell that a connection keeps on the bastion. It looks, makes our directory,
 * and removes what we made when it ends, however it ends. It must never follow a link to a directory it trusts, never
 * remove what another connection owns, and needs no program beyond POSIX and readlink.
 *
 * It is fed over stdin (see helper.ts), because a login shell such as csh would mangle or refuse it as an argument:
 * lines below 250 characters, no tab. Commands are lines `SEQ VERB ARGS`; answers are `key=value` lines between markers.
 */
import { COMMAND_FILES_FUNCTIONS } from "./command-files-script.js";
import { TOOLS_FUNCTIONS } from "./tools-script.js";

/** What the first line of a helper's output ends with once it reads; `nonce` is hex. */
export function helperMarker(nonce: string): string {
  return `tokenfwd-${nonce}`;
}

/** Ends the script on stdin. */
export const SCRIPT_END = "tokenfwd-end-of-script";

/**
 * The command line for the login shell, of any kind: no `!`, no newline and no backslash before a quote or a backslash
 * (csh and fish lose those). The marker is put together there, so that an echo of this text is not taken for it.
 */
export function bootstrapCommand(nonce: string): string {
  const text = [
    "stty raw -echo 2>/dev/null",
    'n=$(printf "\\012_")',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
    "n=${n%_}",
    "s=",
    `printf "%s-%s\\012" tokenfwd ${nonce}`,
    `while IFS= read -r l;do case $l in ${SCRIPT_END})break;;esac;s="$s$l$n";done`,
    'eval "$s"',
  ].join(";");
  return `exec /bin/sh -c '${text}'`;
}

/** The script; `nonce` as in the bootstrap command. */
export function helperScript(nonce: string): string {
  return `M=tokenfwd; M=$M-${nonce}\n${SCRIPT}`;
}

const SCRIPT = String.raw`set -f
umask 077
LC_ALL=C; export LC_ALL
# A bash as sh would end "read" after so many idle seconds, and with it our socket.
unset TMOUT
P0=$PATH
PATH=$PATH:/usr/local/bin:/usr/bin:/bin; export PATH
uid=$(id -u)
RT= RTKIND=none BASE= D= S= K= ID= MADE=0 LAST=0
say() { printf '%s=%s\n' "$1" "$2"; }
has() { command -v "$1" >/dev/null 2>&1; }
meta() { set -- $(ls -ldn "$1" 2>/dev/null); mode=$1; owner=$3; }
kind() {
  if test -h "$1"; then k=link
  elif test -S "$1"; then k=socket
  elif test -d "$1"; then k=dir
  elif test -e "$1"; then k=other
  else k=none; fi
}
# A directory that may hold our socket: absolute, no link, ours, 0700. Says why not.
fit() {
  case $1 in /*) ;; *) why=relative; return 1;; esac
  case $1 in *[[:cntrl:]]*) why=characters; return 1;; esac
  kind "$1"
  case $k in none) why=missing; return 1;; dir) ;; *) why=$k; return 1;; esac
  meta "$1"
  test "$owner" = "$uid" || { why=owner; return 1; }
  case $mode in drwx------|drwx------[.@]) return 0;; esac
  why=mode; return 1
}
choose() {
  for c in XDG_RUNTIME_DIR:"$XDG_RUNTIME_DIR" run:/run/user/$uid run:/var/run/user/$uid; do
    d=${"$"}{c#*:}
    while case $d in ?*/) true;; *) false;; esac; do d=${"$"}{d%/}; done
    test -n "$d" || continue
    if fit "$d"; then RT=$d; RTKIND=${"$"}{c%%:*}; return; fi
    say skipped "${"$"}{c%%:*} $why"
  done
  d=/tmp/tokenfwd-$uid
  mkdir "$d" 2>/dev/null
  if fit "$d"; then RT=$d; RTKIND=tmp; else say skipped "tmp $why"; fi
}
probe() {
  say uid "$uid"
  choose
  say rt "$RT"
  say rtkind "$RTKIND"
  say os "$(uname -s)"
  say pid "$$"
  case $SHELL in *[!A-Za-z0-9._/+-]*) ;; /?*) test ${"$"}{#SHELL} -le 200 && say shell "$SHELL";; esac
  for t in perl python3 socat nc; do has $t && say tool $t; done
  # p11-kit itself cannot say which release it is (--version is refused by 0.24), its package can.
  v=
  if has dpkg-query; then v=$(dpkg-query -W -f '${"$"}{Version}' libp11-kit0 2>/dev/null)
  elif has rpm; then v=$(rpm -q --qf '%{VERSION}' p11-kit 2>/dev/null); fi
  case $v in [0-9]*) case $v in *[!0-9A-Za-z.+~:-]*) ;; *) say p11kit "$v";; esac;; esac
  set +f
  for f in /usr/lib/*/pkcs11/p11-kit-client.so /usr/lib/pkcs11/p11-kit-client.so /usr/lib64/pkcs11/p11-kit-client.so \
    /usr/local/lib/pkcs11/p11-kit-client.so /opt/homebrew/lib/pkcs11/p11-kit-client.so; do
    test -e "$f" && { say client "$f"; break; }
  done
  set -f
}
name() { D=$RT/tokenfwd/$1; S=$D/p11.sock; K=$RT/p11-kit/pkcs11; }
# The owner file is one line: connectId and the pid of its helper. No file is no owner; a strange one is "invalid".
owned() {
  oid= opid=
  test -e "$1" || test -h "$1" || return
  test -f "$1" && test ! -h "$1" && read -r oid opid < "$1" 2>/dev/null
  case $oid in ''|*[!A-Za-z0-9-]*) oid=invalid;; esac
  test ${"$"}{#oid} -gt 64 && oid=invalid
  case $opid in ''|*[!0-9]*) opid=;; esac
}
# Takes away the owner file of a dead connect, by a rename, so that of two that try only one takes it.
disown() {
  mv "$D/owner" "$D/owner.$$" 2>/dev/null || return
  owned "$D/owner.$$"
  test "$oid" = "$1" || ln "$D/owner.$$" "$D/owner" 2>/dev/null
  rm -f "$D/owner.$$"
}
look() {
  l=$RT/tokenfwd/$1
  if fit "$RT/tokenfwd"; then say base ok; else say base "$why"; fi
  if fit "$l"; then say dir ok; else say dir "$why"; fi
  owned "$l/owner"
  say owner "$oid"
  if test -n "$opid" && kill -0 "$opid" 2>/dev/null; then say alive yes; else say alive no; fi
  kind "$l/p11.sock"; say sock "$k"
}
claim() {
  name "$1"
  test -d "$RT/tokenfwd" || mkdir "$RT/tokenfwd" 2>/dev/null
  fit "$RT/tokenfwd" || { say fail "$why"; D=; return; }
  BASE=$RT/tokenfwd
  mkdir "$D" 2>/dev/null
  fit "$D" || { say fail "$why"; D=; return; }
  test -n "$3" && disown "$3"
  if (set -C; printf '%s %s\n' "$2" "$$" > "$D/owner") 2>/dev/null; then ID=$2; say claim ok
    # Left by a dead connect that made the p11-kit directory: it is ours to remove now.
    test -f "$D/made" && MADE=1
  else say fail taken; D=; fi
}
adopt() { name "$1"; ID=$2; BASE=$RT/tokenfwd; test -f "$D/made" && MADE=1; say adopt ok; }
# Removes a dead socket at our own path, never anything else.
unsock() {
  l=$RT/tokenfwd/$1/p11.sock
  kind "$l"
  test $k = socket && rm -f "$l"
  kind "$l"; say sock $k
}
known() {
  if test $RTKIND = tmp; then say wk unfit; return; fi
  kind "$RT/p11-kit"
  case $k in none) say wk none; return;; dir) ;; *) say wk unfit; return;; esac
  meta "$RT/p11-kit"
  test "$owner" = "$uid" || { say wk unfit; return; }
  case $mode in drwx[r-]-[x-][r-]-[x-]*) ;; *) say wk unfit; return;; esac
  kind "$K"; say wk $k
  test $k = link && test "$(readlink "$K")" = "$S" && say ours yes
  test $k = link && test ! -e "$K" && say dangling yes
}
link() {
  kind "$RT/p11-kit"
  if test $k = none; then mkdir "$RT/p11-kit" 2>/dev/null && MADE=1 && : > "$D/made"; fi
  t=$K.tokenfwd.$$
  if ln -s "$S" "$t" 2>/dev/null && mv -f "$t" "$K" 2>/dev/null; then say link ok
  else rm -f "$t"; say fail link; fi
}
clean() {
  if test -n "$D"; then
    owned "$D/owner"
    if test "$oid" = "$ID"; then
      if test -h "$K" && test "$(readlink "$K")" = "$S"; then rm -f "$K"; fi
      test "$MADE" = 1 && rmdir "$RT/p11-kit" 2>/dev/null
      drop
      strip
      rm -f "$S" "$D/made" "$D/owner"
      rmdir "$D" 2>/dev/null
    fi
  fi
  # One that was not fit is somebody else's, empty or not.
  test -n "$BASE" && rmdir "$BASE" 2>/dev/null
  test "$RTKIND" = tmp && rmdir "$RT" 2>/dev/null
  D= BASE=
}
# Takes further functions from the channel, in the same way as this text came; what they print is the answer.
more() {
  t=
  while IFS= read -r l; do case $l in ${SCRIPT_END}) break;; esac; t="$t$l
"; done
  eval "$t"
}
${TOOLS_FUNCTIONS}${COMMAND_FILES_FUNCTIONS}# Does anything answer the version byte at a socket? answers, silent, refused, or unknown: no tool, or no permission.
ping() {
  r= w=
  if has perl; then
    r=$(perl -MIO::Socket::UNIX -e '
      $SIG{ALRM} = sub { print "silent"; exit }; alarm 3;
      $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or do { print $!{ECONNREFUSED} || $!{ENOENT} ? "refused" : "unknown"; exit };
      syswrite $s, chr 0; print sysread($s, $b, 1) ? "answers" : "silent"' "$1" 2>/dev/null)
  fi
  if test -z "$r" && has python3; then
    r=$(python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(3)
try: s.connect(sys.argv[1])
except (ConnectionRefusedError, FileNotFoundError): print("refused"); sys.exit()
except Exception: print("unknown"); sys.exit()
try: s.sendall(b"\0"); print("answers" if s.recv(1) else "silent")
except Exception: print("silent")' "$1" 2>/dev/null)
  fi
  if test -z "$r" && has nc && nc -h 2>&1 | grep -q -e '-U\|[[]-[^]]*U'; then
    if test "$(printf '\000' | nc -U -w 3 "$1" 2>/dev/null | wc -c)" -gt 0; then r=answers
    elif w=$(nc -z -U "$1" 2>&1); then r=silent
    else case $w in *refused*|*'No such file'*) r=refused;; esac; fi
  fi
  case $r in answers|silent|refused) ;; *) r=unknown;; esac
  say ping $r
}
trap clean EXIT
trap 'exit 1' HUP INT TERM PIPE
while IFS= read -r line; do
  set -- $line
  q=$1; v=$2
  test $# -ge 2 || continue
  shift 2
  printf '%s %s begin\n' "$M" "$q"
  case $v in
    probe) probe;;
    look) look "$1";;
    claim) claim "$1" "$2" "$3";;
    adopt) adopt "$1" "$2";;
    unsock) unsock "$1";;
    known) known;;
    link) link;;
    findnode) findnode;;
    more) more; "$@";;
    put) put "$1" "$2";;
    login) login "$1";;
    present) present "$1";;
    block) block "$1";;
    keep) keep "$1" "$2" "$3";;
    drop) drop; say drop ok;;
    pingsock) ping "$RT/tokenfwd/$1/p11.sock";;
    pingknown) ping "$RT/p11-kit/pkcs11";;
    release) trap - EXIT; say release ok;;
    exit) trap - EXIT; clean; say clean ok;;
    *) say fail verb;;
  esac
  printf '%s %s end\n' "$M" "$q"
  case $v in release|exit) exit 0;; esac
  test $LAST = 0 || exit 1
done
`;
