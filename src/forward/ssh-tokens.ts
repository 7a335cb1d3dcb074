/*
 * The `~`, `%` and `${}` expansions of ssh_config in file names, which `ssh -G` prints unexpanded (ssh_config(5), TOKENS).
 * It must never be used for a text that is run as a command.
 */
import { homedir, hostname, userInfo } from "node:os";

export interface TokenContext {
  readonly destination: string;
  readonly host: string;
  readonly user: string;
  readonly port: number;
  readonly hostKeyAlias: string | null;
}

/** The file name as ssh would open it; an unknown token stays as it is written. */
export function expandTokens(value: string, context: TokenContext): string {
  const unquoted = value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
  const home = unquoted === "~" || unquoted.startsWith("~/") ? homedir() + unquoted.slice(1) : unquoted;
  const withEnvironment = home.replace(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g, (_whole, name: string) => process.env[name] ?? "");
  return withEnvironment.replace(/%(.)/g, (whole, letter: string) => {
    switch (letter) {
      case "%":
        return "%";
      case "d":
        return homedir();
      case "h":
        return context.host;
      case "i":
        return String(userInfo().uid);
      case "k":
        return context.hostKeyAlias ?? context.host;
      case "L":
        return hostname().split(".")[0] ?? "";
      case "l":
        return hostname();
      case "n":
        return context.destination.slice(context.destination.lastIndexOf("@") + 1);
      case "p":
        return String(context.port);
      case "r":
        return context.user;
      case "u":
        return userInfo().username;
      default:
        return whole;
    }
  });
}
