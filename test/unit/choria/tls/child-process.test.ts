import { describe, expect, it } from "vitest";
import { silentLog } from "../../../../src/base/log.js";
import { silentEnd, startHandshakeProcess } from "../../../../src/choria/tls/child-process.js";
import { processesNaming } from "../../../support/processes.js";

/** A process that runs this text in the place of the handshake. */
const start = (script: string, pin: Buffer | null = null) =>
  startHandshakeProcess({
    program: ["-e", script],
    engine: { enginesDirectory: "/engines", modulePath: "/module.so" },
    address: "unix:path=/s",
    pin,
    log: silentLog,
  });
/** Reports the value of an expression. */
const reporting = (expression: string) =>
  `require("fs").writeSync(4, JSON.stringify({ kind: "failed", code: "", message: String(${expression}) }) + "\\n")`;

describe("the process that makes a handshake", () => {
  it("may dump no core and has no terminal, and knows where engine, module and token are", async () => {
    process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
    const names = ["OPENSSL_ENGINES", "PKCS11_MODULE_PATH", "P11_KIT_SERVER_ADDRESS", "NODE_TLS_REJECT_UNAUTHORIZED"];
    const limits = `require("fs").readFileSync("/proc/self/limits", "utf8").match(/core file size +(\\d+)/)[1]`;
    const terminal = `(() => { try { return require("fs").openSync("/dev/tty"); } catch (e) { return e.code; } })()`;
    const child = start(reporting(`[${limits}, ${terminal}, ...${JSON.stringify(names)}.map((name) => process.env[name])].join()`));
    delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"];
    expect(await child.next()).toMatchObject({ message: "0,ENXIO,/engines,/module.so,unix:path=/s," });
    expect(await child.next()).toBeNull();
    expect(await child.end()).toBeNull();
  });

  it("reads the PIN from a pipe that can be opened by name, and finds it nowhere else", async () => {
    const pin = "canary-314159";
    const where = `[require("fs").readFileSync("/dev/fd/5", "latin1"), JSON.stringify([process.env, process.argv]).includes("canary-3141" + "59")]`;
    const child = start(reporting(`${where}.join()`), Buffer.from(pin));
    expect(await child.next()).toMatchObject({ message: `${pin},false` });
    await child.end();
  });

  it("says by which signal it died, and means a refused log-in by a segmentation fault", async () => {
    const child = start('process.kill(process.pid, "SIGSEGV"); setInterval(() => {}, 1000)');
    expect(await child.next()).toBeNull();
    const signal = await child.end();
    expect(signal).toBe("SIGSEGV");
    expect(silentEnd(signal)).toMatchObject({ code: "E_REFUSED", message: expect.stringContaining("the log-in to the token was refused") });
    expect(silentEnd("SIGKILL").code).toBe("E_CHORIA_ENGINE");
  });

  it("ends at once when it is told to, whatever it is doing", async () => {
    const mark = `busy-${process.pid}`;
    const child = start(`${reporting("1")}; for (;;) ; // ${mark}`);
    await child.next();
    const begin = performance.now();
    await child.end();
    expect(performance.now() - begin).toBeLessThan(2_000);
    expect(processesNaming(mark)).toEqual([]);
  });
});
