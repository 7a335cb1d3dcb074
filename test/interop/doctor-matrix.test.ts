/*
 * The fault matrix of doctor, a quick part of it: each fault made for real, the command run as a process, and exactly one check that
 * names it. The whole of it, with pairs of faults, is test/long/doctor-matrix.test.ts.
 */
import { describe } from "vitest";
import { LOGIN_FAULTS } from "../support/doctor-login-faults.js";
import { doctorMatrix } from "../support/doctor-matrix.js";
import { PLACE_FAULTS } from "../support/doctor-place-faults.js";
import { WORKSTATION_FAULTS } from "../support/doctor-workstation-faults.js";

const { row } = doctorMatrix();

describe("doctor names the one fault there is:", () => {
  for (const fault of [...WORKSTATION_FAULTS, ...LOGIN_FAULTS, ...PLACE_FAULTS]) if (fault.fast === true) row(fault, false);
});
