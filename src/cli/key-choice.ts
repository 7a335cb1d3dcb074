/*
 * Which key a connect exposes, decided on public objects alone and before any login (design 11). It must never take one of
 * several keys by itself, and never ask on anything but the terminal.
 */
import type { PublicObject } from "../agent/inspect.js";
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";
import type { Terminal } from "./terminal.js";

/** A public object as inspectToken gives it: `uri` is that of the private key it belongs to. */
export type KeyCandidate = Pick<PublicObject, "uri" | "label" | "slot">;

export interface KeyChoice {
  /** URI of the private key, `all`, or null when the token shows nothing that could have one. */
  readonly key: string | null;
  /** What a person should know about the choice; null when there is nothing. */
  readonly warning: string | null;
}

/**
 * Chooses: `given` when there is one; one certificate: its key; several: asked; none but one public key: that key.
 * Two objects with one id on one token are one key. Rejects with E_KEY_CHOICE holding the URIs when nobody can be asked.
 */
export async function chooseKey(
  given: string | null,
  found: { readonly certificates: readonly KeyCandidate[]; readonly publicKeys: readonly KeyCandidate[] },
  terminal: Terminal,
  signal: AbortSignal,
): Promise<KeyChoice> {
  if (given !== null) return { key: given, warning: null };
  const kind = found.certificates.length > 0 ? "certificate" : "public key";
  const candidates = new Map<string, KeyCandidate>();
  for (const object of found.certificates.length > 0 ? found.certificates : found.publicKeys) {
    if (!candidates.has(object.uri)) candidates.set(object.uri, object);
  }
  const [only, ...others] = candidates.keys();
  if (only === undefined)
    return {
      key: null,
      warning: "the token shows no certificate and no public key; nothing of it can be used until one is named with --key",
    };
  if (others.length === 0) return { key: only, warning: null };
  return { key: await ask(candidates, kind, terminal, signal), warning: null };
}

async function ask(candidates: ReadonlyMap<string, KeyCandidate>, kind: string, terminal: Terminal, signal: AbortSignal): Promise<string> {
  // A module gives objects in any order; a number must mean the same key the next time.
  const keys = [...candidates.keys()].sort();
  if (terminal.available) {
    const label = (key: string) => printable(candidates.get(key)?.label || "(no label)", 80);
    const list = keys.map((key, index) => `  ${index + 1}  ${label(key)}  ${printable(key, 400)}`);
    const question = [
      `tokenfwd: the token holds several keys:`,
      ...list,
      `number of the key to use (1-${keys.length}), or Enter for none: `,
    ];
    const answer = (await terminal.ask(question, signal))?.trim();
    const chosen = answer !== undefined && /^[0-9]{1,4}$/.test(answer) ? keys[Number(answer) - 1] : undefined;
    if (chosen !== undefined) return chosen;
  }
  throw new TokenfwdError("E_KEY_CHOICE", `there are ${keys.length} keys with a ${kind}, and one must be named`, {
    hint: `choose with --key: ${keys.map((key) => `'${key}'`).join(" or ")}, or --key all`,
    reason: new Set([...candidates.values()].map(({ slot }) => slot)).size > 1 ? "several-tokens" : "several-keys",
  });
}
