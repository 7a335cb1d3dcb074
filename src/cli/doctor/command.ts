/*
 * `tokenfwd doctor` on the workstation: the walk over this machine and, with a destination, the way there. It never logs in unless there
 * is something to ask a PIN with, and takes away everything that it made.
 */
import type { Log } from "../../base/log.js";
import { createDoctorContext, type DoctorOptions } from "../../doctor/context.js";
import { checksFor } from "../../doctor/table.js";
import { checkDestination, checkSshOptions } from "../connect/command.js";
import { chooseKey } from "../key-choice.js";
import { createLifetime, processSignals } from "../lifetime.js";
import { checkTokenOptions, usage } from "../options.js";
import type { RawDoctorOptions } from "../program.js";
import { createTerminal, noTerminal } from "../terminal.js";
import { checkReport, givenOptions, walkAndWrite } from "./walk.js";

/** Checks the options of doctor. Throws E_USAGE, and what checkTokenOptions throws. */
export function checkDoctorOptions(destination: string | undefined, raw: RawDoctorOptions): DoctorOptions {
  if (destination !== undefined) checkDestination(destination);
  return {
    ...checkTokenOptions(raw),
    allowFullOverForward: raw.allowFullOverForward === true,
    destination: destination ?? null,
    ssh: checkSshOptions(raw),
  };
}

/**
 * Answers the status of the first check that failed, 0 when none did. With --socket, or where TOKENFWD_SOCKET says that this is a bastion,
 * and without a destination, it is the bastion's side that is looked at. Throws E_USAGE, and E_INTERRUPTED after a signal.
 */
export async function runDoctor(destination: string | undefined, raw: RawDoctorOptions, log: Log): Promise<number> {
  if (destination !== undefined && raw.socket !== undefined)
    throw usage("--socket is for the bastion's side, which has no destination", "leave one of them out");
  if (destination === undefined && (raw.socket !== undefined || process.env["TOKENFWD_SOCKET"])) {
    const { runBastionDoctor } = await import("./bastion-command.js");
    return runBastionDoctor(raw);
  }
  if (destination !== undefined && process.env["TOKENFWD_NESTED"] === "1")
    throw usage("called from within ssh -G", "a Match exec in ssh_config must not run tokenfwd doctor");
  const options = checkDoctorOptions(destination, raw);
  const report = checkReport(raw.report);
  const lifetime = createLifetime(processSignals);
  const { signal } = lifetime;
  const terminal = createTerminal();
  try {
    const context = createDoctorContext(options, {
      signal,
      log,
      env: process.env,
      defer: lifetime.defer,
      chooseKey: async (given, found, stop) => (await chooseKey(given, found, noTerminal, stop)).key,
      ask: {
        askPassphrase: (keyPath) => terminal.askSecret(`passphrase for ${keyPath}: `, signal),
        askLogin: ({ lines, echo }) => terminal.askSecret(lines, signal, echo),
      },
    });
    const output = { json: raw.json === true, report, side: "workstation" as const, options: givenOptions(raw) };
    return await walkAndWrite(checksFor(options.destination), context, signal, output);
  } finally {
    await lifetime.close();
  }
}
