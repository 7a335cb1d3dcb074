/* A bastion that stops answering, floods or intrudes: every wait ends by itself, and nothing it opens by itself is taken. */
import { readFileSync } from "node:fs";
import type { Duplex } from "node:stream";
import { describe, expect, it } from "vitest";
import { collectedIo, contents, openTestForward, recordingUi, rejection, settingsOf, startProxy, through } from "../support/forward.js";
import { type Misbehaviour, startHostileBastion } from "../support/hostile-bastion.js";
import { startSshd } from "../support/sshd.js";

describe.concurrent("a bastion that stops answering", () => {
  const cases: readonly (readonly [Misbehaviour, string, RegExp])[] = [
    ["session", "E_REMOTE_SHELL", /no answer in 1 s/],
    ["exec", "E_REMOTE_SHELL", /no answer in 1 s/],
    ["helper", "E_REMOTE_SHELL", /nothing came in 15 s/],
    ["flood", "E_REMOTE_SHELL", /without end/],
    ["listen", "E_FORWARD_REFUSED", /no answer in 1 s/],
  ];
  for (const [how, code, message] of cases) {
    it(`at this step ends in ${code}: ${how}`, { timeout: 30_000 }, async () => {
      await using bastion = await startHostileBastion(how);
      const error = await rejection(openTestForward(null, { settings: await bastion.settings() }));
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
      expect(error.hint).not.toBe("");
      expect(contents(bastion.runtimeDir)).toEqual([]);
    });
  }

  for (const how of ["short command", "open"] as const) {
    it(`where it does no harm does not stop us: ${how}`, { timeout: 30_000 }, async () => {
      await using bastion = await startHostileBastion(how);
      const { forward } = await openTestForward(null, { settings: await bastion.settings() });
      expect(forward.ready.verified).toBe("rpc");
      await forward.close();
      expect(contents(bastion.runtimeDir)).toEqual([]);
    });
  }

  it("cannot keep us from ending: neither after ready nor while it is opened", { timeout: 30_000 }, async () => {
    const sshd = await startSshd();
    const [proxy, other] = [await startProxy(sshd.port), await startProxy(sshd.port)];
    try {
      const settings = await settingsOf(sshd);
      const { forward } = await openTestForward(sshd, { settings: through(proxy, settings) });
      proxy.freeze();
      await forward.close();
      const abort = new AbortController();
      const ui = recordingUi();
      const frozen: typeof ui = {
        ...ui,
        event(name) {
          if (name !== "probe") return;
          other.freeze();
          abort.abort();
        },
      };
      const opening = openTestForward(sshd, { settings: through(other, settings), recorded: frozen, signal: abort.signal });
      expect(await rejection(opening)).toMatchObject({ code: "E_INTERRUPTED" });
    } finally {
      await proxy.dispose();
      await other.dispose();
      await sshd.dispose();
    }
  });
});

describe("a bastion that does more than it was asked", () => {
  it("gets no channel but those to our socket", async () => {
    await using bastion = await startHostileBastion("unsolicited");
    const { forward, agent } = await openTestForward(null, { settings: await bastion.settings() });
    await expect.poll(() => bastion.intrusions.length).toBe(3);
    expect(bastion.intrusions.filter(([, accepted]) => accepted)).toEqual([]);
    // The one that verified it.
    expect(agent.streams).toHaveLength(1);
    await forward.close();
  });

  it("gets no channel to a port but those that began on its own loopback and at the port that we have", async () => {
    await using bastion = await startHostileBastion("none");
    const { forward } = await openTestForward(null, { settings: await bastion.settings() });
    const taken: Duplex[] = [];
    expect(await forward.listenLoopback((stream) => void taken.push(stream))).toBe(30_000);
    await expect.poll(() => bastion.intrusions.length).toBe(4);
    expect(bastion.intrusions.filter(([, accepted]) => accepted)).toEqual([["our port", true]]);
    expect(taken).toHaveLength(1);
    await forward.close();
  });

  it("is cut off when it shows another host key later, and asked no second time for the one it has", async () => {
    for (const how of ["none", "other host key"] as const) {
      await using bastion = await startHostileBastion(how);
      const ui = recordingUi();
      const settings = await bastion.settings();
      const { forward } = await openTestForward(null, { settings, recorded: ui });
      bastion.rekey();
      if (how === "none") {
        const io = collectedIo(null);
        await forward.run(["echo", "still here"], io);
        expect(io.out().toString()).toBe("still here\n");
      } else expect(await forward.lost).toMatchObject({ code: "E_HOST_KEY_CHANGED" });
      await forward.close();
      expect(ui.events.filter((event) => event.name === "hostkey")).toHaveLength(1);
      expect(
        readFileSync(settings.userKnownHostsFiles[0] ?? "", "utf8")
          .trim()
          .split("\n"),
      ).toHaveLength(1);
    }
  });
});

describe("an honest sshd that exchanges keys often", () => {
  it("has its new host key asked for and written once", async () => {
    const sshd = await startSshd({ config: ["RekeyLimit 64K"] });
    try {
      const known = `${sshd.dir}/new`;
      const ui = recordingUi({ confirm: true });
      const settings = await settingsOf(sshd, [`UserKnownHostsFile=${known}`, "StrictHostKeyChecking=ask"]);
      const { forward } = await openTestForward(sshd, { settings, recorded: ui });
      const io = collectedIo();
      expect(await forward.run(["head", "-c", "1000000", "/dev/zero"], io)).toMatchObject({ code: 0 });
      expect(io.out().length).toBe(1_000_000);
      await forward.close();
      expect(ui.questions).toHaveLength(1);
      expect(readFileSync(known, "utf8").trim().split("\n")).toHaveLength(1);
    } finally {
      await sshd.dispose();
    }
  });
});
