/*
 * Choria's configuration on the bastion, as doctor reads it over SSH: none, one in order, one in the wrong syntax, one that cannot be
 * read; and that it decides at the workstation what the token's key must be.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { resultOf, type Walked, walkDoctor } from "../support/doctor.js";
import { softHsmHere } from "../support/softhsm-here.js";
import { type Sshd, startSshd } from "../support/sshd.js";

const here = softHsmHere();
let bastion: Sshd;
let home: string;

beforeAll(async () => {
  home = join(here.token.dir, "home");
  mkdirSync(home);
  bastion = await startSshd({ setEnv: { HOME: home } });
});
afterAll(() => bastion?.dispose());
afterEach(() => rmSync(join(home, ".choriarc"), { recursive: true, force: true }));

const walk = (key: string): Promise<Walked> =>
  walkDoctor({
    destination: "bastion",
    module: here.token.modulePath,
    key,
    ssh: { sshOptions: [], configFile: bastion.sshConfig },
  });
const configure = (...lines: string[]) => {
  const all = ["plugin.security.provider = file", `plugin.security.file.ca = ${here.token.caFile}`, ...lines];
  writeFileSync(join(home, ".choriarc"), all.map((line) => `${line}\n`).join(""), { mode: 0o600 });
};
const RSA = "pkcs11:id=%01";
const EC = "pkcs11:id=%02";
const HOSTS = "plugin.choria.middleware_hosts = broker.example:4222";

test("without one nothing is said, and an EC key is a warning", async () => {
  const walked = await walk(EC);
  expect([walked.broken, walked.status]).toEqual([["choria-identity not-rsa-yet"], 0]);
  expect(resultOf(walked, "choria-there").detail).toBe("no Choria configuration");
});

test("with one in order the key has to be one that Choria takes", async () => {
  configure(HOSTS, "discovery_timeout = 20");
  const walked = await walk(RSA);
  expect([walked.broken, walked.status]).toEqual([[], 0]);
  expect(resultOf(walked, "choria-there").detail).toContain(`${home}/.choriarc`);
  expect(resultOf(walked, "choria-identity").detail).toBe("choria=ops.mcollective");
  const ec = await walk(EC);
  expect([ec.broken, ec.status]).toEqual([["choria-identity not-rsa"], 50]);
});

test("with a line in the wrong syntax is told the line", async () => {
  configure(HOSTS, "discovery_timeout = 20", 'collectives: "mcollective"');
  const walked = await walk(RSA);
  expect([walked.broken, walked.status]).toEqual([["choria-there syntax"], 50]);
  expect(resultOf(walked, "choria-there").detail).toContain(".choriarc line 5");
  expect(resultOf(walked, "choria-there").mend).toContain("collectives = mcollective");
});

test("with one that is no file is told so", async () => {
  mkdirSync(join(home, ".choriarc"));
  const walked = await walk(RSA);
  expect([walked.broken, walked.status]).toEqual([["choria-there unreadable"], 50]);
});
