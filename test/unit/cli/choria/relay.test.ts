import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { TokenfwdError } from "../../../../src/base/errors.js";
import { createEmitter } from "../../../../src/base/events.js";
import { silentLog } from "../../../../src/base/log.js";
import type { BrokerRelayEvents } from "../../../../src/choria/relay/relay.js";
import type { TlsClientEvents } from "../../../../src/choria/tls/tls-client.js";
import { checkRelayOptions, type RelayOptions, relay } from "../../../../src/cli/choria/relay.js";
import { relayReporter } from "../../../../src/cli/choria/relay-report.js";
import { checkTokenAccess } from "../../../../src/cli/choria/token-access.js";
import { watchToken } from "../../../../src/cli/choria/watch-token.js";
import { createLifetime } from "../../../../src/cli/lifetime.js";
import { createUi } from "../../../../src/cli/ui.js";
import type { CryptokiEvents } from "../../../../src/cryptoki/types.js";

/** A CA that openssl made once; only its form counts here. */
const CA = `-----BEGIN CERTIFICATE-----
MIIBfDCCASOgAwIBAgIUGN1bUJCNNRXCAD8YeEqGIyq6hSwwCgYIKoZIzj0EAwIw
-----END CERTIFICATE-----
`;

describe("the options of choria relay", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "tfwd-relay-options-"));
    writeFileSync(join(dir, "broken.pem"), CA);
    writeFileSync(join(dir, "text"), "no certificate");
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const given = { broker: ["one:4222"], ca: "ca.pem", loginFile: "login" };
  it.each([
    [{ ...given, broker: [] }, "a broker is missing"],
    [{ ...given, broker: [" , "] }, "a broker is missing"],
    [{ ...given, broker: ["one:4222,http://two"] }, "--broker takes HOST:PORT, and http://two is none"],
    [{ ...given, broker: ["one:99999"] }, "--broker takes HOST:PORT, and one:99999 is none"],
    [{ ...given, srv: "example.net" }, "--broker and --srv exclude each other"],
    [{ ...given, broker: [], srv: "example.net;x" }, "--srv takes a domain, and example.net;x is none"],
    [{ broker: ["one"], loginFile: "login" }, "the CA is missing"],
    [{ broker: ["one"], ca: "ca.pem" }, "the login file is missing"],
    [{ ...given, listen: "0.0.0.0:4222", ca: "package.json" }, "--listen takes a loopback address"],
    [{ ...given, ca: "/nonexistent" }, "--ca names /nonexistent, which is not a file"],
  ])("are looked at first: %j", (raw, message) => {
    expect(() => checkRelayOptions(raw)).toThrow(expect.objectContaining({ code: "E_USAGE", message: expect.stringContaining(message) }));
  });

  it.each([
    ["text", "holds no certificate in PEM"],
    ["broken.pem", "holds a certificate that is none"],
  ])("take no CA that holds no certificate: %s", (name, message) => {
    expect(() => checkRelayOptions({ ...given, ca: join(dir, name) })).toThrow(
      expect.objectContaining({ code: "E_CHORIA_CONFIG", message: expect.stringContaining(message) }),
    );
  });
});

describe("the brokers of a domain", () => {
  it("that has none are missed before anything is made or asked", async () => {
    const dir = mkdtempSync(join(tmpdir(), "tfwd-relay-"));
    const loginFile = join(dir, "login");
    const listen = { host: "127.0.0.1", port: 0 };
    const access: RelayOptions["access"] = checkTokenAccess({});
    const asked: string[] = [];
    const unused = (): never => {
      throw new Error("not to be reached");
    };
    const ending = relay(
      { access, brokers: [], srvDomain: "example.net", caPem: "", loginFile, listen },
      {
        resolveSrv: async (name) => {
          asked.push(name);
          throw new Error("ENOTFOUND");
        },
        stdout: new PassThrough(),
        ui: createUi({ write: () => true }),
        lifetime: createLifetime(() => () => undefined),
        env: {},
        log: silentLog,
        connect: unused,
      },
    );
    await expect(ending).rejects.toMatchObject({
      code: "E_CHORIA_BROKER",
      message: "the domain example.net has no SRV record of a broker",
    });
    expect({ asked, login: existsSync(loginFile) }).toEqual({
      asked: ["_mcollective-server._tcp.example.net", "_x-puppet-mcollective._tcp.example.net"],
      login: false,
    });
    rmSync(dir, { recursive: true });
  });
});

describe("what a relay tells", () => {
  function scene() {
    const lines: string[] = [];
    const ui = createUi({
      write(text: string) {
        lines.push(text.trimEnd());
        return true;
      },
    });
    let nowMs = 0;
    const reporter = relayReporter(ui, () => nowMs);
    const relay = createEmitter<BrokerRelayEvents>();
    const tls = createEmitter<TlsClientEvents>();
    reporter.watch({ events: relay }, { events: tls });
    return {
      lines,
      reporter,
      relay,
      tls,
      later(ms: number) {
        nowMs += ms;
      },
    };
  }
  const down = new TokenfwdError("E_CHORIA_BROKER", "the broker one:1 cannot be reached: nobody listens there", { hint: "start it" });

  it("is of brokers only once one has accepted the key, and then once each", () => {
    const { lines, reporter, relay } = scene();
    relay.emit("upstream", { broker: "one:1", state: "down", cause: down });
    relay.emit("upstream", { broker: "two:2", state: "up", cause: null });
    expect(lines).toEqual([]);
    reporter.ready();
    for (const _ of [1, 2, 3]) relay.emit("upstream", { broker: "one:1", state: "down", cause: down });
    expect(lines).toEqual([
      "tokenfwd: the broker one:1 cannot be reached: nobody listens there",
      "tokenfwd: what may mend it: start it",
      "tokenfwd: the broker two:2 answers",
    ]);
    relay.emit("upstream", { broker: "one:1", state: "up", cause: null });
    relay.emit("upstream", { broker: "one:1", state: "down", cause: down });
    expect(lines.slice(3)).toEqual([
      "tokenfwd: the broker one:1 answers",
      "tokenfwd: the broker one:1 cannot be reached: nobody listens there",
      "tokenfwd: what may mend it: start it",
    ]);
  });

  it("is of the touch at once", () => {
    const { lines, tls } = scene();
    tls.emit("signing", { broker: "broker one:1", attempt: 1 });
    tls.emit("cut", { broker: "broker one:1", signMs: 3100, brokerMs: 2010 });
    tls.emit("signing", { broker: "broker one:1", attempt: 2 });
    expect(lines).toEqual([
      "tokenfwd: the token signs a TLS handshake with broker one:1: touch it if it blinks",
      "tokenfwd: broker one:1 hung up after 2.0 s, and the token took 3.1 s",
      "tokenfwd: the token signs a TLS handshake with broker one:1, try 2: touch it if it blinks",
    ]);
  });

  it("is of a fault once, and again when it comes back after it was mended", () => {
    const { lines, reporter, relay, tls } = scene();
    reporter.ready();
    const error = new TokenfwdError("E_REFUSED", "the token said no");
    for (const _ of [1, 2]) relay.emit("fault", { error });
    tls.emit("signed", { broker: "b", signMs: 1 });
    relay.emit("fault", { error });
    expect(lines).toEqual(["tokenfwd: the token said no", "tokenfwd: the token said no"]);
  });

  it("is of who was turned away, one line in ten seconds", () => {
    const { lines, relay, later } = scene();
    for (let each = 0; each < 5; each++) relay.emit("refused", { why: "a client without the login" });
    later(10_000);
    relay.emit("refused", { why: "a client with a wrong login" });
    expect(lines).toEqual([
      "tokenfwd: turned away: a client without the login",
      "tokenfwd: turned away: a client with a wrong login (6 so far)",
    ]);
  });
});

describe("watchToken", () => {
  it("hears of a token that was pulled, of an agent that was away, and of one that is gone, once", async () => {
    vi.useFakeTimers();
    try {
      const events = createEmitter<CryptokiEvents>();
      const heard: string[] = [];
      let isGone = false;
      const status = () => (isGone ? Promise.reject(new Error("gone")) : Promise.resolve(null));
      const stop = watchToken({ events, status }, (why) => heard.push(why));
      events.emit("token-gone", { slot: 1n });
      events.emit("epoch", { epoch: 2 });
      await vi.advanceTimersByTimeAsync(15_000);
      expect(heard).toEqual(["the token was pulled", "the agent was gone for a while"]);
      isGone = true;
      await vi.advanceTimersByTimeAsync(15_000);
      expect(heard.slice(2)).toEqual(["the agent is gone"]);
      stop();
      events.emit("token-gone", { slot: 1n });
      await vi.advanceTimersByTimeAsync(15_000);
      expect(heard).toHaveLength(3);
    } finally {
      vi.useRealTimers();
    }
  });
});
