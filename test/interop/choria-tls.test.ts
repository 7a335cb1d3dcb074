/*
 * TLS with the token's key to a real broker: how often the token signs, and for whom it does not.
 */
import { execFileSync } from "node:child_process";
import { constants } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { createServer } from "node:tls";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { dialTcp } from "../../src/choria/dial.js";
import { readLine } from "../../src/choria/relay/line.js";
import { createTlsClient, type TlsClient, type TlsClientOptions, type TlsPeer } from "../../src/choria/tls/tls-client.js";
import { type ChoriaNetwork, startChoriaNetwork } from "../support/choria/network.js";
import { choriaAvailable } from "../support/choria/program.js";
import { type SpiedToken, spyOn } from "../support/choria/spy.js";
import { createFakePinentry } from "../support/fake-pinentry.js";
import { processesNaming } from "../support/processes.js";
import { createShimModule, type ShimModule } from "../support/shim-module.js";
import { type ServerProcess, startAgent, startStockServer, TOKENFWD } from "./agent-process.js";

const NEVER = { signal: new AbortController().signal };

describe.skipIf(!(await choriaAvailable()))("TLS with the token's key", () => {
  let network: ChoriaNetwork;
  let spied: SpiedToken;
  let shim: ShimModule;
  let agent: ServerProcess;
  beforeAll(async () => {
    network = await startChoriaNetwork({ servers: 0 });
    spied = spyOn(network.token);
    shim = await createShimModule(spied.modulePath);
    agent = await startAgent({
      token: { modulePath: shim.modulePath, env: { ...spied.env, ...shim.env }, pin: network.token.pin },
      pin: "file",
    });
  });
  afterAll(async () => {
    await agent?.dispose();
    await shim?.dispose();
    await network?.dispose();
  });

  const clientFor = (options: Partial<TlsClientOptions> = {}): TlsClient =>
    createTlsClient({
      certificatePem: readFileSync(network.operator.certificate, "utf8"),
      keyUri: "pkcs11:token=operator;id=%01;type=private",
      caPem: readFileSync(network.pki.ca, "utf8"),
      address: agent.address,
      program: [TOKENFWD, "choria", "tls-handshake"],
      ...options,
    });

  const peer = (host = "localhost"): TlsPeer => ({
    host,
    port: network.port,
    async open(signal) {
      const socket = await dialTcp("127.0.0.1", network.port, signal);
      await readLine(socket, { maxBytes: 10_000, timeoutMs: 5_000, signal });
      return socket;
    },
  });

  /** What the broker answers to a PING of whoever has this connection. */
  async function pong(stream: Duplex): Promise<string> {
    stream.write('CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"lang":"test","version":"1","protocol":1}\r\nPING\r\n');
    const [answer] = (await once(stream, "data")) as [Buffer];
    stream.destroy();
    return answer.toString("latin1").slice(0, 6);
  }

  /** How many signatures the token makes meanwhile. */
  async function signatures(work: () => Promise<unknown>): Promise<number> {
    const before = spied.signatures();
    await work();
    return spied.signatures() - before;
  }

  it("signs once, however many connections are made at once, and not for later ones", async () => {
    const tls = clientFor();
    const connect = async () => pong(await tls.connect(peer(), NEVER));
    expect(await signatures(async () => expect(await Promise.all([1, 2, 3, 4, 5].map(connect))).toEqual(Array(5).fill("PONG\r\n")))).toBe(
      1,
    );
    expect(await signatures(async () => expect(await connect()).toBe("PONG\r\n"))).toBe(0);
    tls.dropSessions();
    expect(await signatures(async () => expect(await connect()).toBe("PONG\r\n"))).toBe(1);
    await tls.close();
    await expect(tls.connect(peer(), NEVER)).rejects.toMatchObject({ code: "E_CHORIA" });
  });

  it("reaches a broker by its address, when its certificate has that", async () => {
    const tls = clientFor();
    expect(await pong(await tls.connect(peer("127.0.0.1"), NEVER))).toBe("PONG\r\n");
    await tls.close();
  });

  it("signs for no broker under another name", async () => {
    const tls = clientFor();
    const made = await signatures(async () => {
      await expect(tls.prewarm(peer("broker.example.com"), NEVER)).rejects.toMatchObject({
        code: "E_CHORIA_BROKER",
        message: expect.stringMatching(/^the certificate of broker broker\.example\.com:\d+ is for another name: it is for DNS:localhost/),
      });
    });
    expect(made).toBe(0);
    await tls.close();
  });

  it.each([
    ["stranger", "is not signed by the CA that was given"],
    ["wrong-name", "is for another name: it is for "],
    ["expired", "has expired"],
  ] as const)("signs for no broker whose certificate is bad (%s), met for the first time or again", async (certificate, why) => {
    const [fresh, known] = [clientFor(), clientFor()];
    await known.prewarm(peer(), NEVER);
    await network.restartBroker({ certificate });
    try {
      const made = await signatures(async () => {
        for (const tls of [fresh, known]) {
          await expect(tls.connect(peer(), NEVER)).rejects.toMatchObject({
            code: "E_CHORIA_BROKER",
            message: expect.stringContaining(why),
            hint: expect.stringContaining("nothing was signed"),
          });
        }
      });
      expect(made).toBe(0);
    } finally {
      await Promise.all([fresh.close(), known.close()]);
      await network.restartBroker({ certificate: "good" });
    }
  });

  it("resumes nothing with a broker whose certificate has expired meanwhile: it is looked at anew", async () => {
    let aheadMs = 0;
    const tls = clientFor({
      now() {
        const now = Date.now() + aheadMs;
        aheadMs = 0;
        return now;
      },
    });
    await tls.prewarm(peer(), NEVER);
    expect(await signatures(async () => expect(await pong(await tls.connect(peer(), NEVER))).toBe("PONG\r\n"))).toBe(0);
    aheadMs = 31 * 86_400_000;
    expect(await signatures(async () => expect(await pong(await tls.connect(peer(), NEVER))).toBe("PONG\r\n"))).toBe(1);
    await tls.close();
  });

  it("signs once more when the broker was started anew, which knows no session of before", async () => {
    const tls = clientFor();
    await tls.prewarm(peer(), NEVER);
    await network.restartBroker();
    expect(await signatures(async () => expect(await pong(await tls.connect(peer(), NEVER))).toBe("PONG\r\n"))).toBe(1);
    await tls.close();
  });

  it("says that the broker does not take the token's certificate, and which is not the key's own", async () => {
    const foreign = join(network.dir, "foreign.pem");
    const issuer = ["-CA", network.pki.stranger, "-CAkey", network.pki.stranger.replace(/pem$/, "key")];
    execFileSync("openssl", ["req", "-x509", "-key", network.operator.key, "-subj", "/CN=ptittle", ...issuer, "-out", foreign]);
    for (const [certificate, code, message] of [
      [foreign, "E_CHORIA_BROKER", /does not accept the token's certificate \(.*unknown ca/],
      [network.mallory.certificate, "E_KEY_MISMATCH", /is not the token key's own/],
    ] as const) {
      const tls = clientFor({ certificatePem: readFileSync(certificate, "utf8") });
      await expect(tls.prewarm(peer(), NEVER)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
      await tls.close();
    }
  });

  it.each([3, 10])(
    "tries again when a touch of %i s took longer than the broker waits",
    async (seconds) => {
      const tls = clientFor();
      const cuts: number[] = [];
      // A key that remembers a touch: only the first signature waits for it.
      tls.events.on("cut", ({ brokerMs }) => {
        cuts.push(brokerMs);
        void shim.control();
      });
      await shim.control(`C_Sign sleep ${seconds * 1000}`);
      expect(await signatures(() => tls.prewarm(peer(), NEVER))).toBe(2);
      expect(cuts).toHaveLength(1);
      expect(cuts[0]).toBeGreaterThan(1_500);
      expect(cuts[0]).toBeLessThan(2_900);
      await tls.close();
    },
    30_000,
  );

  it("says that every touch came too late, and does not ask at once again", async () => {
    const tls = clientFor();
    await shim.control("C_Sign sleep 2500");
    try {
      const late = {
        code: "E_CHORIA_BROKER",
        message: expect.stringMatching(/gave 2\.\d s for the TLS handshake, and the token took 2\.\d s, 3 times$/),
      };
      expect(await signatures(() => expect(tls.connect(peer(), NEVER)).rejects.toMatchObject(late))).toBe(3);
      expect(await signatures(() => expect(tls.connect(peer(), NEVER)).rejects.toMatchObject(late))).toBe(0);
    } finally {
      await shim.control();
      await tls.close();
    }
  }, 30_000);

  it("ends a handshake that waits for the token when it is closed, and leaves no process", async () => {
    const tls = clientFor();
    await shim.control("C_Sign sleep 4000");
    try {
      const signing = new Promise((resolve) => tls.events.on("signing", resolve));
      const connecting = expect(tls.connect(peer(), NEVER)).rejects.toMatchObject({ code: "E_CHORIA" });
      await signing;
      expect(processesNaming(`${TOKENFWD} choria tls-handshake`, agent.address).length).toBeGreaterThan(0);
      const begin = performance.now();
      await tls.close();
      expect(performance.now() - begin).toBeLessThan(2_000);
      await connecting;
      expect(processesNaming(`${TOKENFWD} choria tls-handshake`, agent.address)).toEqual([]);
    } finally {
      await shim.control();
    }
  });

  it("says that the token is gone, and goes on when it is back", async () => {
    const tls = clientFor();
    await shim.control("token out");
    await expect(tls.prewarm(peer(), NEVER)).rejects.toMatchObject({ code: "E_KEY_NOT_FOUND" });
    await shim.control();
    // The agent looks for it once a second.
    const made = () => tls.prewarm(peer(), NEVER).then(() => "a session", String);
    await expect.poll(made, { timeout: 10_000 }).toBe("a session");
    await tls.close();
  });

  it("says that the token did not sign", async () => {
    const tls = clientFor();
    await shim.control("C_Sign rv 50");
    await expect(tls.prewarm(peer(), NEVER)).rejects.toMatchObject({ code: "E_REFUSED" });
    await shim.control();
    await tls.close();
  });

  it("says that the log-in was refused at the workstation", async () => {
    const { program } = await createFakePinentry(network.dir, "pinentry", { GETPIN: "ERR 83886179 Operation cancelled\\n" });
    const env = { ...spied.env, TOKENFWD_PINENTRY: program };
    const asking = await startAgent({ token: { modulePath: spied.modulePath, env, pin: network.token.pin }, pin: "ask" });
    const tls = clientFor({ address: asking.address });
    try {
      const before = spied.signatures();
      await expect(tls.prewarm(peer(), NEVER)).rejects.toMatchObject({
        code: "E_REFUSED",
        message: expect.stringContaining("the log-in to the token was refused"),
      });
      expect(spied.signatures()).toBe(before);
    } finally {
      await tls.close();
      await asking.dispose();
    }
  });

  it("says that nobody answers on the agent's socket", async () => {
    const tls = clientFor({ address: "unix:path=/nonexistent" });
    await expect(tls.prewarm(peer(), NEVER)).rejects.toMatchObject({
      code: "E_KEY_NOT_FOUND",
      message: expect.stringContaining("/nonexistent"),
    });
    await tls.close();
  });

  it("says that a server resumes no session, and does not have the token sign for each connection to it", async () => {
    const { certificate, key } = await network.pki.leaf("no-sessions", { commonName: "localhost" });
    const files = { cert: readFileSync(certificate), key: readFileSync(key), ca: readFileSync(network.pki.ca) };
    const server = createServer({ ...files, requestCert: true, secureOptions: constants.SSL_OP_NO_TICKET }, (socket) => {
      socket.on("error", () => undefined);
      socket.resume();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const tls = clientFor();
    try {
      const open = (signal: AbortSignal) => dialTcp("127.0.0.1", port, signal);
      const none = { code: "E_CHORIA_BROKER", message: `broker localhost:${port} resumes no TLS session` };
      const made = await signatures(async () => {
        for (const _ of [1, 2, 3]) await expect(tls.connect({ host: "localhost", port, open }, NEVER)).rejects.toMatchObject(none);
      });
      // The session, and a second one in case the first was only too old.
      expect(made).toBe(2);
      const again = () => expect(tls.connect({ host: "localhost", port, open }, NEVER)).rejects.toMatchObject(none);
      const clock = performance.now.bind(performance);
      let aheadMs = 2_500;
      vi.spyOn(performance, "now").mockImplementation(() => clock() + aheadMs);
      expect(await signatures(again)).toBe(2);
      // The pause is twice as long by now: whoever leads us from broker to broker empties no token.
      aheadMs += 2_500;
      expect(await signatures(again)).toBe(0);
    } finally {
      vi.restoreAllMocks();
      await tls.close();
      server.close();
    }
  });

  it("gives a stock p11-kit server its PIN, once, and says when it is wrong or missing", async () => {
    const stock = await startStockServer({ env: spied.env, modulePath: spied.modulePath, pin: network.token.pin });
    try {
      const logins = () => (readFileSync(join(network.token.dir, "spy.log"), "latin1").match(/^\d+: C_Login$/gm) ?? []).length;
      const before = logins();
      const stockLogins = () => logins() - before;
      const pin = Buffer.from(network.token.pin);
      let asked = 0;
      const tls = clientFor({
        address: stock.address,
        async pin() {
          asked += 1;
          return pin;
        },
      });
      for (const _ of [1, 2]) {
        expect(await pong(await tls.connect(peer(), NEVER))).toBe("PONG\r\n");
        tls.dropSessions();
      }
      await tls.close();
      expect({ asked, isWiped: pin.every((byte) => byte === 0) }).toEqual({ asked: 1, isWiped: true });
      const wrong = clientFor({ address: stock.address, pin: () => Promise.resolve(Buffer.from("000000")) });
      for (const _ of [1, 2]) await expect(wrong.prewarm(peer(), NEVER)).rejects.toMatchObject({ code: "E_PIN_WRONG" });
      await wrong.close();
      // Once, and not again.
      expect(stockLogins()).toBe(3);
      const none = clientFor({ address: stock.address });
      await expect(none.prewarm(peer(), NEVER)).rejects.toMatchObject({ code: "E_PIN_SOURCE" });
      await none.close();
    } finally {
      await stock.dispose();
    }
  });
});
