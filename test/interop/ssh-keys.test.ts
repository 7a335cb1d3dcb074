/* Several keys against a real sshd: which are offered, in which order, how often, and when a passphrase is asked for. */
import { spawn } from "node:child_process";
import { appendFileSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { run } from "../../src/base/run.js";
import { openTestForward, type RecordedUi, recordingUi, rejection, settingsOf } from "../support/forward.js";
import { makeSshKey, type Sshd, startSshd } from "../support/sshd.js";

let sshd: Sshd;
let directory: string;
beforeAll(async () => {
  sshd = await startSshd({ config: ["MaxAuthTries 4"] });
});
afterAll(() => sshd?.dispose());
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tfwd-keys-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const file = (name: string) => join(directory, name);
const tried = (ui: RecordedUi) =>
  ui.events.filter(({ name, data }) => name === "auth" && "ok" in data).map(({ data }) => `${data["method"]} ${data["key"]} ${data["ok"]}`);

/** An agent that holds these key files, for as long as `use` takes. */
async function withAgent(keys: readonly string[], use: (socket: string) => Promise<void>): Promise<void> {
  const socket = file("agent");
  const agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: ["ignore", "pipe", "ignore"] });
  await new Promise((resolve) => agent.stdout.once("data", resolve));
  try {
    for (const key of keys) expect((await run("ssh-add", [key], { env: { SSH_AUTH_SOCK: socket } })).exitCode).toBe(0);
    await use(socket);
  } finally {
    const exited = new Promise((resolve) => agent.once("exit", resolve));
    agent.kill();
    await exited;
  }
}

/** Key files of which the bastion takes the last. */
function threeKeys(): string[] {
  const names = ["a", "b", "good"].map(file);
  for (const name of names) {
    makeSshKey(name);
    const comment = name.slice(directory.length + 1);
    writeFileSync(`${name}.pub`, readFileSync(`${name}.pub`, "utf8").replace("tokenfwd test", comment));
  }
  appendFileSync(sshd.authorizedKeys, readFileSync(`${names[2]}.pub`));
  return names;
}

describe("several keys", () => {
  it("are offered once each: a file whose key the agent has offered is not tried again", async () => {
    const [a = "", b = "", good = ""] = threeKeys();
    await withAgent([a, b], async (socket) => {
      const ui = recordingUi();
      const base = await settingsOf(sshd, ["IdentitiesOnly=no", `IdentityAgent=${socket}`]);
      const settings = { ...base, identityFiles: [a, b, good] };
      await (await openTestForward(null, { recorded: ui, settings })).forward.close();
      // Five tries would have been one more than MaxAuthTries.
      expect(tried(ui)).toEqual([
        expect.stringMatching(/^agent .* false$/),
        expect.stringMatching(/^agent .* false$/),
        `publickey ${good} true`,
      ]);
    });
  });

  it("of an agent come in the order of the configuration, and IdentityAgent none leaves the agent out", async () => {
    const [a = "", b = "", good = ""] = threeKeys();
    await withAgent([a, b, good], async (socket) => {
      const first = recordingUi();
      const settings = { ...(await settingsOf(sshd, ["IdentitiesOnly=no", `IdentityAgent=${socket}`])), identityFiles: [good] };
      await (await openTestForward(null, { recorded: first, settings })).forward.close();
      expect(tried(first)).toHaveLength(1);
      const without = recordingUi();
      const none = { ...(await settingsOf(sshd, ["IdentityAgent=none"])), identityFiles: [good] };
      await (await openTestForward(null, { recorded: without, settings: none })).forward.close();
      expect(tried(without)).toEqual([`publickey ${good} true`]);
    });
  });

  it("are told with their reason when none is taken", async () => {
    const [a = "", b = ""] = threeKeys();
    writeFileSync(file("broken"), "no key\n");
    const settings = { ...(await settingsOf(sshd)), identityFiles: [a, b, file("broken")] };
    const error = await rejection(openTestForward(null, { settings }));
    expect(error.code).toBe("E_SSH_AUTH");
    for (const name of [a, b, file("broken")]) expect(error.message).toContain(`publickey ${name}`);
    expect(error.message).toMatch(/broken \(.+\)/);
  });
});

describe("the passphrase of a key", () => {
  const encrypted = async (name: string, taken: boolean) => {
    makeSshKey(file(name), "ed25519", "sesame");
    if (taken) appendFileSync(sshd.authorizedKeys, readFileSync(`${file(name)}.pub`));
    return file(name);
  };

  it("is not asked for while the bastion does not take the key, and is once it does", async () => {
    const refused = await encrypted("refused", false);
    const taken = await encrypted("taken", true);
    const ui = recordingUi({ passphrases: ["sesame"] });
    const settings = { ...(await settingsOf(sshd)), identityFiles: [refused, taken] };
    await (await openTestForward(null, { recorded: ui, settings })).forward.close();
    expect(ui.questions).toEqual([taken]);
    expect(tried(ui)).toEqual([`publickey ${refused} false`, `publickey ${taken} true`]);
  });

  it("is asked for at once where there is no public half, and the next key is tried when it is wrong", async () => {
    const taken = await encrypted("alone", true);
    rmSync(`${taken}.pub`);
    const ui = recordingUi({ passphrases: ["a", "b", "c"] });
    const settings = { ...(await settingsOf(sshd)), identityFiles: [taken, sshd.identityFile] };
    await (await openTestForward(null, { recorded: ui, settings })).forward.close();
    expect(ui.questions).toEqual([taken, taken, taken]);
    expect(tried(ui)).toEqual([`publickey ${taken} false`, `publickey ${sshd.identityFile} true`]);
  });

  it("is nobody's question under BatchMode", async () => {
    const taken = await encrypted("batch", true);
    copyFileSync(taken, file("copy"));
    const ui = recordingUi({ passphrases: ["sesame"] });
    const settings = { ...(await settingsOf(sshd, ["BatchMode=yes"])), identityFiles: [taken] };
    const error = await rejection(openTestForward(null, { recorded: ui, settings }));
    expect(error).toMatchObject({ code: "E_SSH_AUTH", message: expect.stringContaining("BatchMode") });
    expect(ui.questions).toEqual([]);
  });

  it("that is wrong for a key that was taken leads on to the next key", async () => {
    const taken = await encrypted("wrong", true);
    const ui = recordingUi({ passphrases: ["a", "b", "c"] });
    const settings = { ...(await settingsOf(sshd)), identityFiles: [taken, sshd.identityFile] };
    await (await openTestForward(null, { recorded: ui, settings })).forward.close();
    expect(tried(ui)).toEqual([`publickey ${taken} false`, `publickey ${sshd.identityFile} true`]);
  });
});
