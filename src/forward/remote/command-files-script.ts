/*
 * The part of the helper's script that looks at files for the caller, and that keeps a directory of small files for CMD. It must never
 * answer more than was asked for, never let the text of a file be taken for commands, and never leave a file of the directory behind, or
 * a process of the user's that was started with one.
 *
 * Paths and files stand behind the command that they belong to. A path is one line; of a file dd reads exactly as many bytes as were
 * announced, and where it could not, the helper ends. No text of a file is an argument or a variable there.
 */

/** Bytes of a file in one answer; twice as many digits fit into its 8 KiB. */
export const BLOCK_BYTES = 3_500;

/** The directory in ours. */
export const COMMAND_DIRECTORY = "cmd";

/** What its files may be called; a program there may make others of such names, and `err.PID` for a pipe. */
export const COMMAND_FILE_NAME = /^[a-z]+(\.[a-z]+)?$/;

/** What a program of the directory is given once, to see whether it can be started there; it does nothing and answers 0. */
export const TRY_WORD = "--tokenfwd-try";

/** Functions for the helper's script. They rely on P0, D and uid, and on `say`, `fit` and `kind`. Lines below 250 characters. */
export const COMMAND_FILES_FUNCTIONS = String.raw`
# What a program that the log-in starts would find: its home, its directory, and the first program of a name on its PATH.
login() {
  for v in "home $HOME" "cwd $(pwd)" "user $USER"; do
    x=${"$"}{v#* }
    case $x in *[[:cntrl:]]*) ;; *) say "${"$"}{v%% *}" "$x";; esac
  done
  ifs=$IFS; IFS=:; set -- "$1" $P0; IFS=$ifs
  n=$1; shift
  for d do
    case $d in /*) ;; *) continue;; esac
    case $d in *[[:cntrl:]]*) continue;; esac
    if test -f "$d/$n" && test -x "$d/$n"; then say program "$d/$n"; return; fi
  done
}
# Which of the paths lead to a file, or to something that is there and is none, or cannot be read.
present() {
  i=0
  while test $i -lt "$1"; do
    IFS= read -r f || exit 1
    if test -f "$f" && test -r "$f"; then say present $i
    elif test -e "$f"; then say unreadable $i; fi
    i=$((i + 1))
  done
}
block() {
  IFS= read -r f || exit 1
  test -f "$f" && test -r "$f" || { say fail unreadable; return; }
  say size $(($(wc -c < "$f")))
  say hex "$(dd if="$f" bs=${BLOCK_BYTES} skip="$1" count=1 2>/dev/null | od -An -v -tx1 | tr -d ' \n')"
}
keep() {
  t=$D/${COMMAND_DIRECTORY}
  test -d "$t" || mkdir "$t" 2>/dev/null
  fit "$t" || { LAST=1; say fail "$why"; return; }
  if (set -C; dd bs=1 count="$3" 2>/dev/null > "$t/$1") 2>/dev/null && test $(($(wc -c < "$t/$1"))) -eq "$3" && chmod "$2" "$t/$1"
  then say keep ok; else LAST=1; say fail write; return; fi
  test "$2" = 700 || return
  (PATH=$P0; "$t/$1" ${TRY_WORD}) </dev/null >/dev/null 2>&1
  say run $?
}
# What still runs with one of the files has nothing behind it any more.
drop() {
  t=$D/${COMMAND_DIRECTORY}
  test -d "$t" && test ! -h "$t" || return
  ps -u "$uid" -o pid= -o args= 2>/dev/null | while read -r p a; do
    case $a in *"$t/"*) kill "$p" 2>/dev/null;; esac
  done
  set +f
  for f in "$t"/*; do
    n=${"$"}{f##*/}
    case $n in err.*[!0-9]*|[!a-z]*|*[!a-z0-9.]*) ;; *) rm -f "$f";; esac
  done
  set -f
  rmdir "$t" 2>/dev/null
}
`;
