/*
 * The part of the helper's script that puts our own program on the bastion: finds a Node that can run it, takes the file, checks
 * what arrived, tries it, and takes it away again. It must never start what does not have the sum that was announced, and never
 * remove a file of another name.
 *
 * The file travels in Base64 on the helper's own channel, which may be a terminal and may be the only session there is. Node reads
 * exactly as many characters as were announced; should it not, a line of Base64 is one word and the helper's commands are two or
 * more. The helper's trap covers the file from its first byte.
 */

/** The oldest Node that runs the bundle. */
export const LEAST_NODE = 20;

/** What the program is called on the bastion's PATH. */
export const TOOL_NAME = "tokenfwd";

const BUNDLE = "tokenfwd-bastion.cjs";

// Between the shell's apostrophes: it must hold none. Status 3 says that there is no room.
const RECEIVE = `
const fs = require("fs");
const [, chars, file] = process.argv;
const text = Buffer.alloc(Number(chars));
for (let have = 0; have < text.length; ) {
  let got = 0;
  try { got = fs.readSync(0, text, have, text.length - have, null); }
  catch (error) {
    if (error.code !== "EAGAIN") throw error;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    continue;
  }
  if (got === 0) process.exit(1);
  have += got;
}
try {
  const fd = fs.openSync(file, "wx", 0o600);
  fs.writeFileSync(fd, Buffer.from(text.toString("latin1"), "base64"));
  fs.closeSync(fd);
} catch (error) { process.exit(error.code === "EDQUOT" || error.code === "ENOSPC" ? 3 : 2); }
`.trim();

const SUM = 'process.stdout.write(require("crypto").createHash("sha256").update(require("fs").readFileSync(0)).digest("hex"))';

/**
 * Functions for the helper's script. They rely on P0 (the PATH of the log-in, which CMD will have), D (our directory there), and on
 * `say` and `fit`. Lines below 250 characters.
 */
export const TOOLS_FUNCTIONS = String.raw`
NODE=
# The first Node that is new enough is taken; what else has the name is said.
findnode() {
  ifs=$IFS; IFS=:; set -- $P0; IFS=$ifs
  for d do
    case $d in /*) ;; *) continue;; esac
    for f in "$d/node" "$d/nodejs"; do
      case $f in *[[:cntrl:]]*) continue;; esac
      test -f "$f" && test -x "$f" || continue
      nv=$(PATH=$P0 "$f" --version </dev/null 2>/dev/null)
      case $nv in *[!0-9A-Za-z.+-]*) nv=;; esac
      case $nv in v[0-9]*.*) ;; *) nv=unknown;; esac
      m=${"$"}{nv#v}; m=${"$"}{m%%.*}
      case $m in *[!0-9]*|?????*) m=0;; esac
      if test "$m" -ge ${LEAST_NODE}; then NODE=$f; say node "$f"; say nodever "$nv"; return; fi
      say found "$nv $f"
    done
  done
}
checksum() {
  for by in sha256sum 'shasum -a 256' 'openssl dgst -sha256 -r' node; do
    if test "$by" = node; then h=$("$NODE" -e '${SUM}' < "$1" 2>/dev/null)
    else h=$($by < "$1" 2>/dev/null); fi
    h=${"$"}{h%% *}
    test ${"$"}{#h} -eq 64 && return
  done
}
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }
put() {
  t=$D/bin
  # What a dead connect left.
  strip
  mkdir "$t" 2>/dev/null
  fit "$t" || { say fail "$why"; return; }
  "$NODE" -e '${RECEIVE}' "$1" "$t/${BUNDLE}.new" 2>/dev/null
  case $? in 0) ;; 3) say fail full; return;; *) say fail write; return;; esac
  checksum "$t/${BUNDLE}.new"
  say sum "$h"
  test "$h" = "$2" || { say fail sum; return; }
  {
    printf '#!/bin/sh\nexec %s %s "$@"\n' "$(quoted "$NODE")" "$(quoted "$t/${BUNDLE}")" > "$t/${TOOL_NAME}.new" &&
      chmod 700 "$t/${TOOL_NAME}.new" && mv -f "$t/${BUNDLE}.new" "$t/${BUNDLE}" && mv -f "$t/${TOOL_NAME}.new" "$t/${TOOL_NAME}"
  } 2>/dev/null || { say fail write; return; }
  out=$(PATH=$P0 "$t/${TOOL_NAME}" --version </dev/null 2>&1)
  say run $?
  say said "$(printf %s "$out" | tr -c ' -~' ' ' | cut -c 1-200)"
}
strip() {
  test -d "$D/bin" && test ! -h "$D/bin" || return
  rm -f "$D/bin/${TOOL_NAME}" "$D/bin/${TOOL_NAME}.new" "$D/bin/${BUNDLE}" "$D/bin/${BUNDLE}.new"
  rmdir "$D/bin" 2>/dev/null
}
`;
