/*
 * The checks about Choria, walked last: whether it is configured, here or on the bastion, decides what the token's key must be.
 */
import type { Check } from "../check.js";
import type { DoctorContext } from "../context.js";
import { choriaConfigCheck } from "./config.js";
import { choriaIdentityCheck } from "./identity.js";

const NOT_LOOKED = { notLooked: "another check does" };

/** The configuration of this machine. */
const hereCheck = choriaConfigCheck<DoctorContext>({
  id: "choria-config",
  title: "Choria configuration",
  where: "on this machine",
  needs: [],
  found: ({ choria }) => choria.here(),
  keys: async () => NOT_LOOKED,
});

/** The configuration of the bastion. */
const thereCheck = choriaConfigCheck<DoctorContext>({
  id: "choria-there",
  title: "Choria on the bastion",
  where: "on the bastion",
  needs: ["remote-shell"],
  found: ({ choria }) => choria.there(),
  keys: async () => NOT_LOOKED,
});

/** Without a destination. */
export const CHORIA_HERE_CHECKS: readonly Check<DoctorContext>[] = [hereCheck, choriaIdentityCheck];

/** With one. */
export const CHORIA_CHECKS: readonly Check<DoctorContext>[] = [hereCheck, thereCheck, choriaIdentityCheck];
