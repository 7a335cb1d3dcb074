/*
 * The words of a choria command line, and where our configuration belongs among them. It must never touch one that names a
 * configuration of its own, or a command that has no use for ours.
 */

/**
 * Commands of choria 0.30 that take no `--config`, or that are not about being a client: servers and brokers, enrolment, documents.
 * An unknown one gets our configuration: it may be an application of the user's.
 */
export const WITHOUT_CONFIG: readonly string[] = [
  "b",
  "broker",
  "buildinfo",
  "cheat",
  "enroll",
  "exec",
  "exec-supervisor",
  "executor",
  "help",
  "jwt",
  "login",
  "server",
];

/** The words with `--config FILE` behind the command; null when they are to be left as they are. choria knows the flag of a command only. */
export function withConfig(words: readonly (string | Buffer)[], file: string): readonly (string | Buffer)[] | null {
  if (namesConfig(words)) return null;
  const command = words.findIndex((word) => !isFlag(word));
  const name = words[command];
  if (name === undefined || WITHOUT_CONFIG.includes(String(name))) return null;
  return [...words.slice(0, command + 1), "--config", file, ...words.slice(command + 1)];
}

/** Whether the caller gives a configuration. */
export function namesConfig(words: readonly (string | Buffer)[]): boolean {
  return words.some((word) => /^--config(=|$)/.test(String(word)));
}

const isFlag = (word: string | Buffer): boolean => String(word).startsWith("-");
