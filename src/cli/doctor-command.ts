/*
 * `tokenfwd doctor`: walks the checks, and writes what they found. It never logs in unless a PIN source says so, and takes away
 * everything that it made.
 */
import type { Log } from "../base/log.js";
import { createDoctorContext, type DoctorOptions } from "../doctor/context.js";
import { checksFor } from "../doctor/table.js";
import { walk, walkStatus } from "../doctor/walk.js";
import { checkDestination, checkSshOptions } from "./connect-command.js";
import { doctorJson, doctorLines, doctorSum } from "./doctor-output.js";
import { chooseKey } from "./key-choice.js";
import { createLifetime, processSignals } from "./lifetime.js";
import { checkTokenOptions } from "./options.js";
import type { RawDoctorOptions } from "./program.js";
import { createTerminal, noTerminal } from "./terminal.js";

/** Checks the options of doctor. Throws E_USAGE. */
export function checkDoctorOptions(destination: string | undefined, raw: RawDoctorOptions): DoctorOptions {
  if (destination !== undefined) checkDestination(destination);
  return {
    ...checkTokenOptions(raw),
    allowFullOverForward: raw.allowFullOverForward === true,
    destination: destination ?? null,
    ssh: checkSshOptions(raw),
  };
}

/** Answers the status of the first check that failed, 0 when none did. Throws E_USAGE, and E_INTERRUPTED after a signal. */
export async function runDoctor(destination: string | undefined, raw: RawDoctorOptions, log: Log): Promise<number> {
  const options = checkDoctorOptions(destination, raw);
  const lifetime = createLifetime(processSignals);
  const { signal } = lifetime;
  const terminal = createTerminal();
  const { stdout } = process;
  const checks = checksFor(options.destination);
  const style = { colours: stdout.isTTY === true && !process.env["NO_COLOR"], width: Math.max(...checks.map(({ title }) => title.length)) };
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
    const json = raw.json === true;
    const results = await walk(checks, context, {
      signal,
      onResult(result) {
        if (!json) stdout.write(doctorLines(result, style));
      },
    });
    stdout.write(json ? doctorJson(results) : doctorSum(results));
    return walkStatus(results);
  } finally {
    await lifetime.close();
  }
}
