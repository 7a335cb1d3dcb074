/*
 * The facts of the way to the bastion, by the functions that connect itself uses: one connection, on which everything is
 * looked at. It must never write a host key down, and never leave anything on the bastion.
 */
import { randomBytes } from "node:crypto";
import { workstationId } from "../../base/paths.js";
import { connectBastion } from "../../forward/forward.js";
import { resolveSshSettings, type SshSettings } from "../../forward/ssh-settings.js";
import type { Bastion } from "../../forward/types.js";
import type { DoctorGround } from "../context.js";
import { type Fact, lazily } from "../lazy.js";
import type { TokenFacts } from "../workstation/facts.js";

export interface WayFacts {
  /** What ssh would do. Rejects as resolveSshSettings. */
  readonly settings: Fact<SshSettings>;
  /** Connected, logged in and looked at. Rejects as connectBastion. */
  readonly bastion: Fact<Bastion>;
}

/** Nothing is looked at before it is asked for. */
export function createWayFacts({ options, signal, ask, defer }: DoctorGround, _token: TokenFacts): WayFacts {
  const settings = lazily(() => resolveSshSettings(options.destination ?? "", { ...options.ssh, signal }));
  const bastion = lazily(async () => {
    const reached = await connectBastion({
      settings: await settings(),
      workstationId: workstationId(),
      connectId: randomBytes(8).toString("hex"),
      ui: { ...ask, confirmHostKey: async () => false, event: () => {} },
      signal,
      requirePty: false,
    });
    defer(() => reached.close());
    return reached;
  });
  return { settings, bastion };
}
