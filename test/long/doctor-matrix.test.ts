/*
 * The whole fault matrix of doctor, and pairs of faults on parts that do not depend on one another: both are named. Where connect ends
 * with the fault, it names the same cause.
 */
import { describe } from "vitest";
import type { DoctorFault } from "../support/doctor-fault.js";
import { LOGIN_FAULTS } from "../support/doctor-login-faults.js";
import { doctorMatrix } from "../support/doctor-matrix.js";
import { PLACE_FAULTS } from "../support/doctor-place-faults.js";
import { WORKSTATION_FAULTS } from "../support/doctor-workstation-faults.js";

const { row, pair } = doctorMatrix();
const ALL: readonly DoctorFault[] = [...WORKSTATION_FAULTS, ...LOGIN_FAULTS, ...PLACE_FAULTS];

describe("doctor names the one fault there is, and connect the same:", () => {
  for (const fault of ALL) row(fault, true);
});

const PAIRS: readonly (readonly [string, string])[] = [
  ["a module that is missing", "a closed port"],
  ["a module that crashes when it is loaded", "AllowStreamLocalForwarding no"],
  ["no token", "a changed host key"],
  ["two keys", "the key's option no-port-forwarding"],
  ["a locked PIN", "a foreign p11-kit server on our path"],
  ["an expired certificate", "a wrong user"],
  ["a certificate of another key", "a path that is too long"],
  ["a PIN file that others may read", "ForceCommand"],
  ["no p11-kit on the bastion", "AllowTcpForwarding no alone"],
  ["a left-over RemoteForward", "a read-only runtime directory"],
  ["a choria configuration in the wrong syntax", "AllowStreamLocalForwarding no"],
  ["an EC key with no Choria about", "PermitTTY no"],
  ["MaxSessions 1", "a live foreign socket where stock programs look"],
  ["csh as login shell", "DisableForwarding yes"],
];

describe("doctor names both of two faults:", () => {
  const named = (name: string): DoctorFault => {
    const found = ALL.find((fault) => fault.name === name);
    if (found === undefined) throw new Error(`no fault ${name}`);
    return found;
  };
  for (const [one, other] of PAIRS) pair(named(one), named(other));
});
