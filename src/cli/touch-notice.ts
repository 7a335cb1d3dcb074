/*
 * Calls somebody to the device that waits for a finger: the terminal's bell, and a notification on the desktop where there is
 * one. It must never hold up or fail what waits, whatever the desktop does.
 */
import { printable } from "../base/printable.js";
import type { run as runProgram } from "../base/run.js";

export interface TouchNoticeOptions {
  /** Stderr: rung only where it is a terminal. */
  readonly terminal: { readonly isTTY?: boolean; write(text: string): unknown };
  readonly env: NodeJS.ProcessEnv;
  readonly run: typeof runProgram;
}

const BELL = "\x07";
const NOTIFY_TIMEOUT_MS = 5000;

/** Notifications may be read as markup. */
const asText = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** Answers what is to be called once for each wait, with the token's label. */
export function createTouchNotice({ terminal, env, run }: TouchNoticeOptions): (token: string) => void {
  const hasDesktop = Boolean(env["DISPLAY"] || env["WAYLAND_DISPLAY"]);
  return (token) => {
    if (terminal.isTTY === true) terminal.write(BELL);
    if (!hasDesktop) return;
    const text = `the token ${asText(printable(token))} waits for a touch`;
    run("notify-send", ["--app-name=tokenfwd", "--", "tokenfwd", text], { timeoutMs: NOTIFY_TIMEOUT_MS }).catch(() => {});
  };
}
