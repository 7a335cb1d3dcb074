/*
 * A PIN that is asked for once in a run, where the token's other end wants it from this side: by the client library for requests, and by
 * what makes TLS. It must never outlive the run.
 */
import { printable } from "../../base/printable.js";
import { wipeable } from "../../base/secret.js";
import type { PinProvider } from "../../bastion/client/index.js";
import { parseUri } from "../../cryptoki/uri.js";

export interface PinMemory extends Disposable {
  /** Asks `provider` at the first call, and answers copies of that from then on. */
  once(provider: PinProvider): PinProvider;
}

/** Remembers nothing yet. */
export function createPinMemory(): PinMemory {
  let asked: Promise<Buffer | null> | null = null;
  return {
    once: (provider) => async (token, signal) => {
      asked ??= provider(token, signal);
      try {
        const kept = await asked;
        return kept === null ? null : copyOf(kept);
      } catch (error) {
        asked = null;
        throw error;
      }
    },
    [Symbol.dispose]() {
      void asked?.then(
        (kept) => kept?.fill(0),
        () => undefined,
      );
      asked = null;
    },
  };
}

function copyOf(bytes: Buffer): Buffer {
  const copy = wipeable(bytes.length);
  bytes.copy(copy);
  return copy;
}

/** Of the token that has a key, as a PinProvider is told of it. */
export function tokenOf(keyUri: string): { readonly label: string; readonly uri: string } {
  return { label: printable(parseUri(keyUri).path.get("token") ?? Buffer.alloc(0), 64), uri: printable(keyUri) };
}
