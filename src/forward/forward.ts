/*
 * Opens a forward in two steps: connect and look; then claim a directory, listen, verify, link (opening.ts). Between the two the token
 * is opened, because the same card may be the SSH key. It must never go on after the connection has ended or somebody has said stop.
 */
import { TokenfwdError } from "../base/errors.js";
import { findKnownKeys } from "./known-hosts.js";
import { createOpening, interrupted } from "./opening.js";
import type { SshSettings } from "./ssh-settings.js";
import { algorithmsFor } from "./ssh2/algorithms.js";
import { connectSsh2 } from "./ssh2/connect.js";
import type { BastionOptions, Forward, ForwardOptions, SeenBastion } from "./types.js";

export type { Bastion, BastionOptions, Forward, ForwardOptions, ForwardReady, ForwardService, ForwardUi, RunIo } from "./types.js";

/**
 * Connects, logs in and looks at the bastion; nothing is made there yet (design 9).
 * @throws TokenfwdError E_SSH*, E_HOST_KEY_*, E_RUNTIME_DIR, E_PTY_REFUSED, E_REMOTE_SHELL, E_TOOLS, E_INTERRUPTED
 */
export async function connectBastion(options: BastionOptions): Promise<SeenBastion> {
  if (options.signal.aborted) throw interrupted();
  if (!/^[0-9a-f]{8}$/.test(options.workstationId)) throw new TokenfwdError("E_BUG", "the workstation id is not 8 hex digits");
  if (!/^[A-Za-z0-9-]{1,64}$/.test(options.connectId)) throw new TokenfwdError("E_BUG", "the connect id is not a word");
  const transport = await connectSsh2({ settings: options.settings, ui: options.ui, signal: options.signal });
  const opening = createOpening(options, transport);
  const stopped = new Promise<never>((_resolve, reject) => {
    if (options.signal.aborted) reject(interrupted());
    options.signal.addEventListener("abort", () => reject(interrupted()), { once: true });
    void transport.closed.then((lost) => reject(lost ?? interrupted()));
  });
  stopped.catch(() => {});
  const unlessStopped = async <T>(step: Promise<T>): Promise<T> => {
    try {
      return await Promise.race([step, stopped]);
    } catch (error) {
      await opening.close();
      throw TokenfwdError.from(error);
    }
  };
  const { lost, files } = await unlessStopped(opening.look());
  return {
    hostKey: transport.hostKey,
    lost,
    files,
    looked: opening.facts(),
    open: (service) => unlessStopped(opening.open(service, lost)),
    steps: opening,
    close: () => opening.close(),
  };
}

/**
 * What connectBastion looks at before it connects: the files of known hosts, and what the configuration lets us offer.
 * @throws TokenfwdError E_SSH_CONFIG, E_SSH_UNSUPPORTED
 */
export async function checkClientSide(settings: SshSettings): Promise<void> {
  algorithmsFor(settings, await findKnownKeys(settings));
  if (settings.jump !== null) await checkClientSide(settings.jump);
}

/**
 * Connects and makes the agent's socket on the bastion, in one go.
 * @throws TokenfwdError as connectBastion and Bastion.open
 */
export async function openForward(options: ForwardOptions): Promise<Forward> {
  return await (await connectBastion(options)).open(options);
}
