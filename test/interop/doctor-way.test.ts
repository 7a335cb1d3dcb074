/*
 * doctor on a way that is in order, and what it must not do on any: ask, write a host key down, leave something on the bastion, disturb a
 * connect that lives there.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ALL_CHECKS } from "../../src/doctor/table.js";
import { createDoctorStage, createStageToken, type DoctorStage, leftOnBastion, type SeenCheck } from "../support/doctor-stage.js";
import type { SoftHsm } from "../support/softhsm.js";
import type { SshdOptions } from "../support/sshd.js";
import { startCli } from "./cli-process.js";

let token: SoftHsm;
let stage: DoctorStage;
beforeAll(async () => {
  token = await createStageToken();
});
afterEach(() => stage?.dispose());
afterAll(() => token?.dispose());

async function start(options?: SshdOptions): Promise<void> {
  stage = await createDoctorStage(token, options);
}
const one = (checks: readonly SeenCheck[], id: string): SeenCheck | undefined => checks.find((check) => check.id === id);

describe("doctor on a way that is in order", () => {
  test("passes every check, signs at the bastion's end, ends with 0 and leaves nothing there", async () => {
    await start();
    const { checks, exit } = await stage.doctor();
    expect(checks.map(({ id, status }) => [id, status])).toEqual(ALL_CHECKS.map(({ id }) => [id, "pass"]));
    expect(exit).toMatchObject({ code: 0, stderr: "" });
    expect(one(checks, "signature")?.detail).toMatch(/^CKM_SHA256_RSA_PKCS, \d+ ms/);
    expect(one(checks, "host-key")?.detail).toBe(stage.sshd.hostKey);
    expect(one(checks, "p11-kit")?.detail).toMatch(/version byte [012], (old|new) dialect/);
    expect(one(checks, "stock-mechanisms")?.detail).toMatch(/CKM_|everything/);
    expect(leftOnBastion(stage.sshd)).toEqual([]);
  });

  test("does not reach the signature where nothing can give the PIN, and that is no fault", async () => {
    await start();
    const { checks, broken, exit } = await stage.doctor({ options: ["--pin-source", "ask"], env: { TOKENFWD_PINENTRY: "/nowhere" } });
    expect(broken).toEqual([]);
    expect(one(checks, "signature")).toMatchObject({ status: "not-reached", cause: null, mend: null });
    expect(exit.code).toBe(0);
  });

  test("writes no host key down where the configuration would let connect do it", async () => {
    await start();
    const known = join(stage.dir, "known");
    writeFileSync(known, "");
    const { checks, broken } = await stage.doctor({
      options: ["--ssh-option", `UserKnownHostsFile=${known}`, "--ssh-option", "StrictHostKeyChecking=accept-new"],
    });
    expect(broken).toEqual([]);
    expect(one(checks, "host-key")?.detail).toMatch(/not known/);
    expect(readFileSync(known, "utf8")).toBe("");
  });

  test("goes through a jump host, whose name and port are what is looked at first", async () => {
    await start({ addresses: ["127.0.0.1", "127.0.0.2"] });
    const { broken } = await stage.doctor({ options: ["-J", "bastion-2"] });
    expect(broken).toEqual([]);
    const closed = await stage.doctor({ options: ["-J", "ops@127.0.0.1:1"] });
    expect(closed.broken).toMatchObject([{ id: "tcp", cause: "port-closed" }]);
  });

  test("runs beside a connect that lives there, and leaves it its socket and its link", async () => {
    await start();
    const words = ["connect", "bastion", "-F", stage.sshd.sshConfig, "--module", token.modulePath, "--unlock", "later", "--json"];
    const cli = startCli(words, { env: { ...token.env, XDG_STATE_HOME: join(stage.dir, "state") } });
    try {
      await cli.untilEvent("ready");
      const before = leftOnBastion(stage.sshd);
      const { broken, checks } = await stage.doctor();
      expect(broken).toEqual([]);
      expect(one(checks, "path")?.detail).toContain(`${stage.mark}-2/p11.sock`);
      expect(one(checks, "well-known")?.detail).toMatch(/of ours/);
      expect(leftOnBastion(stage.sshd)).toEqual(before);
    } finally {
      await cli.end();
    }
  });
});
