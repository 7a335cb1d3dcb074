/*
 * Builds the command line that a login shell of any kind turns into exactly the argv we were given: every byte as three
 * octal digits, decoded by a /bin/sh one-liner (design 9). It must hold no `!`, no newline, and no backslash before a
 * backslash or a quote: csh and fish would change those.
 */
import { TokenfwdError } from "../../base/errors.js";

/** The limit for all arguments together; three times as much must fit into one 128 KiB string on the bastion. */
export const MAX_ARGV_BYTES = 32 * 1024;

// For each word: `s/.../\\0&/g` makes `\0ooo` of three digits, printf %b the bytes, the dot keeps a final newline.
// biome-ignore-start lint/suspicious/noTemplateCurlyInString: it is the shell's
const DECODE = [
  '_tb=$(printf "\\134")',
  'for _tw do _tw=$(printf %s "$_tw"|sed "s/.../$_tb${_tb}0&/g")',
  '_tw=$(printf "%b." "$_tw")',
  'set -- "$@" "${_tw%.}"',
  "shift",
  "done",
].join(";");
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: it is the shell's

function words(argv: readonly (string | Buffer)[]): string {
  let total = 0;
  const encoded = argv.map((argument) => {
    const bytes = typeof argument === "string" ? Buffer.from(argument, "utf8") : argument;
    if (bytes.includes(0)) throw new TokenfwdError("E_USAGE", "an argument of the command holds a NUL byte");
    total += bytes.length + 1;
    let digits = "";
    for (const byte of bytes) digits += byte.toString(8).padStart(3, "0");
    return digits === "" ? "''" : digits;
  });
  if (total > MAX_ARGV_BYTES) {
    throw new TokenfwdError("E_USAGE", `the command is ${total} bytes long, more than ${MAX_ARGV_BYTES}`, {
      hint: "pass long data on stdin or in a file",
    });
  }
  return encoded.join(" ");
}

/**
 * A command line that runs `argv` with `environment` set, in place of the login shell. `searchFirst` is what comes first
 * on the PATH which the login shell has made: a directory, or several with colons between them.
 * @throws TokenfwdError E_USAGE: nothing to run, a NUL byte, or more than 32 KiB
 */
export function remoteCommand(
  argv: readonly (string | Buffer)[],
  environment: Readonly<Record<string, string>> = {},
  searchFirst: string | null = null,
): string {
  if (argv.length === 0) throw new TokenfwdError("E_USAGE", "there is no command to run");
  const names = Object.keys(environment);
  const values = names.map((name) => environment[name] ?? "");
  const exports = names.map((name) => `export ${name}="$1";shift;`);
  if (searchFirst !== null) {
    values.push(searchFirst);
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
    exports.push('export PATH="$1${PATH:+:$PATH}";shift;');
  }
  return `exec /bin/sh -c '${DECODE};${exports.join("")}unset _tw _tb;exec "$@"' sh ${words([...values, ...argv])}`;
}

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: it is the shell's
const SHELL = 'exec "${SHELL:-/bin/sh}"';
const LOGIN_SHELL = `${SHELL} -l`;
// Of csh, -l stands alone or not at all.
const LOGIN_THEN = `case "\${SHELL##*/}" in csh|tcsh) ${LOGIN_SHELL};; *) ${LOGIN_SHELL} -c "$1";; esac`;
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: it is the shell's

/**
 * A command line that runs the user's login shell with `environment` set. With `searchFirst` the login shell runs its start files and
 * then gives way to a second one, because start files set the PATH anew; under csh the directory stays where they leave it.
 */
export function remoteShell(environment: Readonly<Record<string, string>>, searchFirst: string | null): string {
  if (searchFirst === null) return remoteCommand(["/bin/sh", "-c", LOGIN_SHELL], environment);
  const inner = remoteCommand(["/bin/sh", "-c", SHELL], environment, searchFirst);
  return remoteCommand(["/bin/sh", "-c", LOGIN_THEN, "sh", inner], environment, searchFirst);
}
