/*
 * `tokenfwd doctor` on a bastion, from the bundle as from an installation: who answers on the socket, and what programs there will see
 * of the token. It must run without native code, and never log in unless --pin-source says that it may.
 */
import { connectClient } from "../../bastion/client/index.js";
import { BASTION_CHECKS } from "../../doctor/bastion/checks.js";
import { createBastionContext } from "../../doctor/bastion/context.js";
import { createBastionPin, parseBastionPinSource } from "../bastion-pin.js";
import type { RawBastionDoctorOptions } from "../bastion-program.js";
import { createLifetime, processSignals } from "../lifetime.js";
import { checkSocket } from "../sign/options.js";
import { checkReport, givenOptions, walkAndWrite } from "./walk.js";

/** Answers the status of the first check that failed, 0 when none did. Throws E_USAGE, and E_INTERRUPTED after a signal. */
export async function runBastionDoctor(raw: RawBastionDoctorOptions): Promise<number> {
  const socket = checkSocket(raw.socket);
  const source = raw.pinSource === undefined ? null : parseBastionPinSource(raw.pinSource);
  const report = checkReport(raw.report);
  const pin = source === null ? null : createBastionPin(source, "tokenfwd doctor");
  const lifetime = createLifetime(processSignals);
  const { signal } = lifetime;
  try {
    const context = createBastionContext({
      signal,
      env: process.env,
      uid: process.geteuid?.() ?? 0,
      socket,
      mayAsk: pin !== null,
      defer: lifetime.defer,
      connect: () =>
        connectClient({
          ...(socket === null ? {} : { socket }),
          ...(pin === null ? {} : { pin: pin.provider }),
          client: "tokenfwd doctor",
          snapshot: true,
          signal,
        }),
    });
    return await walkAndWrite(BASTION_CHECKS, context, signal, {
      json: raw.json === true,
      report,
      side: "bastion",
      options: givenOptions(raw),
    });
  } finally {
    await lifetime.close();
  }
}
