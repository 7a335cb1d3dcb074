/*
 * Words in front of sshd that give it files of its own in the place of this machine's: a mount namespace, which ends with it. Nothing
 * outside may be changed. Linux and root only.
 */

/** `script` runs before sshd; `$5` is its configuration file. */
const inNamespace = (script: string): readonly string[] => [
  "unshare",
  "--mount",
  "--propagation",
  "private",
  "sh",
  "-ec",
  `${script}
exec "$@"`,
  "sh",
];

/** A /tmp and a /run/user of its own, empty but for sshd's directory; `prepare` is shell text that runs then. */
export const ownTmp = (prepare: string): readonly string[] =>
  inNamespace(`d=$(dirname "$5"); mkdir -p /run/user; mount -t tmpfs none /run/user; mount --bind "$(dirname "$d")" /mnt
mount -t tmpfs -o mode=1777 none "$(dirname "$d")"; mkdir -m 0700 "$d"; mount --bind "/mnt/$(basename "$d")" "$d"; umount /mnt
${prepare}`);

/** An /etc/passwd in which root has this login shell: a path, or the text of a script that is one. */
export const ownShell = (shell: string): readonly string[] => {
  const script = shell.startsWith("#!");
  const path = script ? "$d/login-shell" : shell;
  const write = script ? `printf '%s\\n' ${shell.split("\n").map(quoted).join(" ")} >"$d/login-shell"; chmod 0755 "$d/login-shell"` : ":";
  return inNamespace(`d=$(dirname "$5"); ${write}
sed "s#^\\(root:.*:\\)[^:]*\\$#\\1${path}#" /etc/passwd >"$d/passwd"; mount --bind "$d/passwd" /etc/passwd`);
};

/** A runtime directory that cannot be written to. */
export const readOnlyRuntimeDir: readonly string[] = inNamespace(
  `d=$(dirname "$5")/run; mount --bind "$d" "$d"; mount -o remount,bind,ro "$d"`,
);

/** Nothing in these directories, and these programs empty and not executable. */
export const without = (directories: readonly string[], programs: readonly string[] = []): readonly string[] =>
  inNamespace(`d=$(dirname "$5"); mkdir -m 0755 "$d/empty"; : >"$d/none"
${directories.map((path) => `mount --bind "$d/empty" ${quoted(path)}`).join("\n")}
${programs.map((path) => `test ! -e ${quoted(path)} || mount --bind "$d/none" "$(readlink -f ${quoted(path)})"`).join("\n")}`);

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
