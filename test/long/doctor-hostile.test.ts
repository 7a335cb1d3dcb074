/*
 * doctor and a bastion that misbehaves: it comes to an end, names the step that is not answered and nothing else, and believes nothing.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { createDoctorStage, createStageToken, type DoctorStage } from "../support/doctor-stage.js";
import { type HostileBastion, type Misbehaviour, startHostileBastion } from "../support/hostile-bastion.js";
import type { SoftHsm } from "../support/softhsm.js";

let token: SoftHsm;
let stage: DoctorStage;
let bastion: HostileBastion;
beforeAll(async () => {
  token = await createStageToken();
});
afterEach(async () => {
  await bastion?.[Symbol.asyncDispose]();
  await stage?.dispose();
});
afterAll(() => token?.dispose());

const ROWS: readonly (readonly [how: Misbehaviour, broken: readonly string[], status: number])[] = [
  ["none", [], 0],
  ["session", ["remote-shell fail no-session"], 12],
  ["exec", ["remote-shell fail no-session"], 12],
  ["helper", ["remote-shell fail shell-silent"], 12],
  ["flood", ["remote-shell fail shell-prints-without-end"], 12],
  ["short command", [], 0],
  ["listen", ["forward fail forward-silent"], 12],
  // What an earlier check has passed broke later; it is said once.
  ["hang up", ["forward fail unexplained"], 10],
  ["open", ["verify warn opened-otherwise"], 0],
  ["unsolicited", [], 0],
];

describe("doctor ends, and names what is not answered, where the bastion misbehaves at", () => {
  for (const [how, wanted, status] of ROWS) {
    test(how, async () => {
      stage = await createDoctorStage(token);
      bastion = await startHostileBastion(how);
      const { port, identityFiles, userKnownHostsFiles } = await bastion.settings();
      const options = [
        "User=root",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        `UserKnownHostsFile=${userKnownHostsFiles[0]}`,
        "StrictHostKeyChecking=accept-new",
        "ConnectTimeout=1",
      ].flatMap((option) => ["--ssh-option", option]);
      const { broken, exit } = await stage.doctor({
        destination: "127.0.0.1",
        options: ["-F", "none", "-p", String(port), "-i", String(identityFiles[0]), ...options],
      });
      expect(broken.map(({ id, status: kind, cause }) => `${id} ${kind} ${cause}`)).toEqual(wanted);
      expect(exit.code).toBe(status);
      for (const [, accepted] of bastion.intrusions) expect(accepted).toBe(false);
    });
  }
});
