/*
 * Where the PIN comes from on a bastion, for a stock p11-kit server or an agent with --pin-source client: any other agent asks
 * at the workstation. The terminal, the file and the descriptor are read by the code that reads them there. It must never take
 * a PIN from an argument or a variable.
 */
import { TokenfwdError } from "../base/errors.js";
import { printable } from "../base/printable.js";
import { wipeable } from "../base/secret.js";
import type { PinProvider } from "../bastion/client/index.js";
import type { Asker } from "../token/host/asker.js";
import { readPinDescriptor, readPinFile } from "../token/host/pin-file.js";
import { openTerminal } from "../token/host/terminal.js";
import { parsePinSource, usage } from "./options.js";

export type BastionPinSource =
  | { readonly kind: "ask" }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "fd"; readonly fd: number };

/** `ask`, `file:PATH` or `fd:N`. Throws E_USAGE. */
export function parseBastionPinSource(text: string): BastionPinSource {
  const source = parsePinSource(text);
  if (source.kind === "client") throw usage("--pin-source client is for the workstation", "here it takes ask, file:PATH or fd:N");
  return source;
}

const ANSWER_WITHIN_MS = 60_000;

/** The warning for a --pin-source that was named in vain. */
export const PIN_NOT_USED = "--pin-source was not used: nothing wanted the PIN from this side";

/** A source of PINs, and whether anybody wanted one. */
export interface BastionPin {
  readonly provider: PinProvider;
  readonly wasUsed: boolean;
}

/**
 * A provider that reads the source when a PIN is first needed. It rejects with E_PIN_SOURCE where there is nothing to read it
 * from, and answers null for a question that was cancelled or not answered in 60 seconds.
 */
export function createBastionPin(source: BastionPinSource, who: string, terminal: () => Asker | null = openTerminal): BastionPin {
  let wasUsed = false;
  const provider: PinProvider = async (token, signal) => {
    wasUsed = true;
    if (source.kind !== "ask") {
      using pin = source.kind === "file" ? readPinFile(source.path) : await readPinDescriptor(source.fd);
      return copyOf(pin.bytes);
    }
    const asker = terminal();
    if (asker === null) {
      throw new TokenfwdError("E_PIN_SOURCE", "the token needs its PIN, and there is no terminal to ask on", {
        hint: "run it on a terminal, or name --pin-source file:PATH (yours, mode 0600) or fd:N",
      });
    }
    const question = { token: printable(token.label, 64), who, notices: [] };
    const answer = await asker.pin(question, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_WITHIN_MS)]));
    if (answer.kind !== "given") return null;
    using pin = answer.pin;
    return copyOf(pin.bytes);
  };
  return {
    provider,
    get wasUsed() {
      return wasUsed;
    },
  };
}

function copyOf(bytes: Buffer): Buffer {
  const copy = wipeable(bytes.length);
  bytes.copy(copy);
  return copy;
}
