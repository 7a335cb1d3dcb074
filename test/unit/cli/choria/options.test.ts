import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { createEmitter } from "../../../../src/base/events.js";
import { silentLog } from "../../../../src/base/log.js";
import type { SignerEvents } from "../../../../src/choria/signer/service.js";
import { parseListen } from "../../../../src/cli/choria/listen-option.js";
import { parseMaxTtl } from "../../../../src/cli/choria/max-ttl.js";
import { choriaStart } from "../../../../src/cli/choria/program.js";
import { sayWhatHappens, signer } from "../../../../src/cli/choria/signer.js";
import { checkTokenAccess } from "../../../../src/cli/choria/token-access.js";
import { createLifetime } from "../../../../src/cli/lifetime.js";
import { createUi } from "../../../../src/cli/ui.js";

const USAGE = expect.objectContaining({ code: "E_USAGE" });

describe("the options of Choria's commands", () => {
  it("take an address with its port, of either family", () => {
    expect(parseListen(undefined)).toEqual({ host: "127.0.0.1", port: 0 });
    expect(parseListen("127.0.0.1:8080")).toEqual({ host: "127.0.0.1", port: 8080 });
    expect(parseListen("[::1]:0")).toEqual({ host: "::1", port: 0 });
    for (const text of [
      "",
      "8080",
      "127.0.0.1",
      "127.0.0.1:",
      "127.0.0.1:65536",
      "::1:80",
      "[::1]",
      "a:b:1",
      "0.0.0.0:80",
      "localhost:80",
      "[::]:80",
    ]) {
      expect(() => parseListen(text), text).toThrow(USAGE);
    }
  });

  it("take a longest ttl that servers and stock clients know", () => {
    expect([undefined, "30", "18000"].map(parseMaxTtl)).toEqual([300, 30, 18_000]);
    for (const text of ["29", "18001", "-1", "1e3", ""]) expect(() => parseMaxTtl(text), text).toThrow(USAGE);
  });

  it("take no PIN, and do not repeat what may be one", () => {
    expect(checkTokenAccess({})).toEqual({ key: null, pinSource: null, socket: null });
    for (const raw of [{ key: "31415926" }, { key: "pkcs11:id=%01?pin-value=31415926" }, { pinSource: "31415926" }, { socket: "" }]) {
      try {
        checkTokenAccess(raw);
        expect.unreachable();
      } catch (thrown) {
        expect(thrown).toEqual(USAGE);
        expect(String(thrown)).not.toContain("31415926");
      }
    }
  });

  it("pass on what stands after -- to the commands that take it, and to no other", async () => {
    let status = -1;
    const ended = (value: number): void => {
      status = value;
    };
    await choriaStart(["req", "--", "x"], ended).withWords(async (words) => words?.length ?? 0);
    expect(status).toBe(3);
    await expect(choriaStart([], ended).alone("signer", async () => 0)).rejects.toThrow("choria signer takes no command");
    await choriaStart(null, ended).alone("signer", async () => 7);
    expect(status).toBe(7);
  });
});

describe("choria signer", () => {
  it("connects to nothing before its options are right", async () => {
    const around = {
      stdout: new PassThrough(),
      ui: createUi(new PassThrough()),
      lifetime: createLifetime(() => () => {}),
      env: {},
      log: silentLog,
      connect: () => Promise.reject(new Error("it connected")),
    };
    for (const raw of [{}, { secrets: "" }, { secrets: "x", listen: "x" }, { secrets: "x", maxTtl: "1" }, { secrets: "x", key: "x" }]) {
      await expect(signer(raw, around), JSON.stringify(raw)).rejects.toEqual(USAGE);
    }
    await expect(signer({ secrets: "x" }, around)).rejects.toThrow("it connected");
  });

  it("says each request, and of strangers the first of each kind", () => {
    const events = createEmitter<SignerEvents>();
    let text = "";
    const write = (line: string): boolean => {
      text += line;
      return true;
    };
    const stop = sayWhatHappens({ events }, createUi({ write }));
    events.emit("signed", { what: "rpcutil#ping in mcollective" });
    events.emit("refused", { code: "E_CHORIA_REQUEST", message: "not signed: it is old" });
    for (let i = 0; i < 3; i++) events.emit("stranger", { reason: "another token" });
    events.emit("stranger", { reason: "another Host" });
    for (let i = 0; i < 12; i++) events.emit("refused", { code: "E_X", message: "m" });
    stop();
    events.emit("signed", { what: "no more" });
    const lines = text.split("\n");
    expect(lines.slice(0, 4)).toEqual([
      "tokenfwd: signed: rpcutil#ping in mcollective",
      "tokenfwd: not signed: it is old [E_CHORIA_REQUEST]",
      "tokenfwd: warning: turned away somebody at the signer's port: another token",
      "tokenfwd: warning: turned away somebody at the signer's port: another Host",
    ]);
    expect(lines.at(-2)).toBe("tokenfwd: and 3 more refused requests by choria within a second");
  });
});
