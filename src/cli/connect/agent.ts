/*
 * Puts our agent behind a connect: opens the module, chooses the key, and makes the agent. It must never log in by itself, and
 * never take one of several keys without being told.
 */
import { unlockError } from "../../agent/unlock-error.js";
import { TokenfwdError } from "../../base/errors.js";
import { CKR } from "../../cryptoki/rv.js";
import type { TokenHost } from "../../token/host/host.js";
import { reportActivity } from "../activity.js";
import { chooseKey } from "../key-choice.js";
import { DESCRIBED_PURPOSES } from "../purposes.js";
import type { ConnectOptions, ConnectParts, ConnectSurroundings, Inner } from "./connect.js";
import type { Serving } from "./serving.js";

/** The agent of a connect; the lifetime closes it. Throws what the parts throw, E_KEY_CHOICE and E_PIN_SOURCE. */
export async function serveAgent(
  options: ConnectOptions,
  around: ConnectSurroundings,
  parts: ConnectParts,
  { remote, ui }: Inner,
): Promise<Serving> {
  const { events, lifetime, log } = around;
  const { signal } = lifetime;
  const { token, pinSource } = options;
  const { holdMs, hosts } = options;
  const starting = parts.openModule({ modulePath: options.module, token, pinSource, holdMs, hosts, signal, log, found: ui.line });
  const host = await lifetime.wait(starting, (late) => late.close());
  lifetime.defer(() => host.close());
  const unlock = await unlockWhen(options, host);
  const inspection = await parts.inspectToken(host, options.token, signal);
  const choice = await chooseKey(options.key, inspection, around.terminal, signal);
  signal.throwIfAborted();
  if (choice.warning !== null) ui.warning(choice.warning);

  const { profile, allowRawRsa } = options;
  const pinMode = pinSource.kind === "client" ? "client" : "ask";
  const describe = DESCRIBED_PURPOSES;
  const agent = await parts.createAgent({ host, token, key: choice.key, profile, allowRawRsa, pinMode, inspection, describe });
  lifetime.defer(() => agent.close());
  const screenIsTheirs = options.command !== null && remote.pty;
  const { onTouch } = around;
  const lines = screenIsTheirs ? null : ui;
  lifetime.defer(reportActivity({ agent, events, ui: lines, log, onTouch, onPrompt: (open) => remote.holdStdin(open) }));
  return {
    key: choice.key,
    tokens: inspection.tokens,
    attach: (stream, origin, connectId) => agent.attach(stream, origin, connectId),
    expectedSlots: () => agent.slots(),
    offerVersion: 2,
    unlock:
      unlock && choice.key !== null
        ? async (origin, stop) => {
            const result = await agent.unlock(origin, stop);
            stop.throwIfAborted();
            if (result.rv !== CKR.CKR_OK) throw unlockError(result);
          }
        : null,
    gone: null,
  };
}

/** `now` with nothing to ask with is refused before anything is opened (design 7). */
async function unlockWhen(options: ConnectOptions, host: TokenHost): Promise<boolean> {
  // The broker is spoken to before ready, with the key; what becomes of the PIN is best said by who asks for it.
  if (options.choria !== null && options.unlock !== "now") return await host.canAsk();
  if (options.unlock === "later" || options.profile === "read") return false;
  if (options.unlock === null && (options.command === null || options.pinSource.kind === "client")) return false;
  const able = options.pinSource.kind !== "client" && (await host.canAsk());
  if (able) return true;
  if (options.unlock === null) return false;
  throw new TokenfwdError("E_PIN_SOURCE", "--unlock now, and there is nothing to ask the PIN with", {
    hint: "run it on a terminal, install pinentry, or give the PIN with --pin-source file:PATH",
  });
}
