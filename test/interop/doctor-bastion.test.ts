/*
 * `tokenfwd doctor` of the one file for a bastion, alone in a directory: against our agent, a stock server, and what is left when
 * neither is there.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createSoftHsm, type SoftHsm } from "../support/softhsm.js";
import { type ServerProcess, startAgent, startStockServer } from "./agent-process.js";
import { type InstalledBundle, installBundle } from "./bastion-bundle.js";
import { runCli } from "./cli-process.js";

interface Walked {
  readonly code: number | null;
  readonly broken: readonly string[];
  readonly details: Readonly<Record<string, string>>;
  readonly mends: Readonly<Record<string, string>>;
}

let token: SoftHsm;
let bastion: InstalledBundle;

beforeAll(async () => {
  token = await createSoftHsm({ objects: "rsa" });
  bastion = await installBundle();
});
afterAll(async () => {
  bastion?.dispose();
  await token?.dispose();
});

async function doctor(env: NodeJS.ProcessEnv, ...words: string[]): Promise<Walked> {
  const { code, stdout, stderr } = await bastion.run(["doctor", "--json", ...words], { env });
  expect(stderr).toBe("");
  const { checks } = JSON.parse(stdout.toString()) as { checks: Record<"id" | "status" | "cause" | "detail" | "mend", string>[] };
  const broken = checks.filter(({ status }) => status === "fail" || status === "warn").map(({ id, cause }) => `${id} ${cause}`);
  const byId = (field: "detail" | "mend") => Object.fromEntries(checks.map((check) => [check.id, check[field]]));
  return { code, broken, details: byId("detail"), mends: byId("mend") };
}

/** A socket that its owner left behind. */
const leave = (path: string) => execFileSync("python3", ["-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", path]);

describe("with our agent", () => {
  let agent: ServerProcess;
  beforeAll(async () => {
    agent = await startAgent({ token, pin: "file" });
  });
  afterAll(() => agent?.dispose());

  test("all is well, and no signature is made", async () => {
    const { code, broken, details } = await doctor({ TOKENFWD_SOCKET: agent.socket, P11_KIT_SERVER_ADDRESS: agent.address });
    expect([code, broken]).toEqual([0, []]);
    expect(details["bastion-agent"]).toBe("tokenfwd's agent, policy sign");
    expect(details["bastion-keys"]).toBe('"rsa key" RSA 2048');
    expect(details["bastion-signature"]).toContain("--pin-source");
    expect(agent.stderr()).not.toContain(" used ");
  });

  test("with --pin-source a signature is made and verified, and the workstation shows it", async () => {
    const { code, broken, details } = await doctor(
      { TOKENFWD_SOCKET: agent.socket, P11_KIT_SERVER_ADDRESS: agent.address },
      "--pin-source",
      "ask",
    );
    expect([code, broken]).toEqual([0, []]);
    expect(details["bastion-signature"]).toMatch(/^CKM_SHA256_RSA_PKCS, \d+ ms$/);
    expect(agent.stderr()).toContain(" used ");
  });

  test("a shell in which stock programs look elsewhere is told what to type", async () => {
    const { code, broken, mends } = await doctor({ TOKENFWD_SOCKET: agent.socket });
    expect([code, broken]).toEqual([0, ["bastion-stock looks-elsewhere"]]);
    expect(mends["bastion-stock"]).toBe(`in this shell: export P11_KIT_SERVER_ADDRESS='${agent.address}'`);
  });

  test("the workstation's own program looks at this side where the socket says that it is one", async () => {
    const { code, stdout } = await runCli(["doctor", "--json"], { env: { ...bastion.env, TOKENFWD_SOCKET: agent.socket } });
    expect(code).toBe(0);
    expect(stdout.toString()).toContain('"bastion-socket"');
  });
});

describe("with another agent", () => {
  test("whose policy is read, that is said", async () => {
    const agent = await startAgent({ token, pin: "file", args: ["--policy", "read"] });
    try {
      expect(await doctor({ TOKENFWD_SOCKET: agent.socket, P11_KIT_SERVER_ADDRESS: agent.address })).toMatchObject({
        code: 0,
        broken: ["bastion-agent read-only"],
      });
    } finally {
      await agent.dispose();
    }
  });

  test("that takes a client's PIN, that is said", async () => {
    const agent = await startAgent({ token, pin: "client" });
    try {
      expect(await doctor({ TOKENFWD_SOCKET: agent.socket, P11_KIT_SERVER_ADDRESS: agent.address })).toMatchObject({
        code: 0,
        broken: ["bastion-agent pin-crosses"],
      });
    } finally {
      await agent.dispose();
    }
  });

  test("of stock p11-kit, that is said", async () => {
    const server = await startStockServer(token);
    try {
      const { code, broken } = await doctor({ P11_KIT_SERVER_ADDRESS: server.address });
      expect([code, broken]).toEqual([0, ["bastion-agent stock-server"]]);
    } finally {
      await server.dispose();
    }
  });
});

describe("without one", () => {
  test("nothing is found", async () => {
    expect(await doctor({})).toMatchObject({ code: 40, broken: ["bastion-socket none"] });
  });

  test("a socket that was left over is named", async () => {
    const base = join(bastion.dir, "tokenfwd");
    mkdirSync(join(base, "0123abcd"), { recursive: true, mode: 0o700 });
    leave(join(base, "0123abcd", "p11.sock"));
    const { code, broken, details } = await doctor({});
    expect([code, broken]).toEqual([40, ["bastion-socket left-over"]]);
    expect(details["bastion-socket"]).toContain("0123abcd/p11.sock");
    rmSync(base, { recursive: true });
  });

  test("a socket that was named and is dead is named", async () => {
    const path = join(bastion.dir, "dead");
    leave(path);
    expect(await doctor({ TOKENFWD_SOCKET: path })).toMatchObject({ code: 40, broken: ["bastion-socket dead"] });
  });

  test("a socket in a directory that others may write to is not spoken to", async () => {
    const open = join(bastion.dir, "open");
    mkdirSync(open);
    chmodSync(open, 0o777);
    leave(join(open, "s"));
    const { code, broken, details } = await doctor({ TOKENFWD_SOCKET: join(open, "s") });
    expect([code, broken]).toEqual([40, ["bastion-socket unsafe"]]);
    expect(details["bastion-socket"]).toContain("can be written by others");
  });

  test("something that hangs up is no agent", async () => {
    const path = join(bastion.dir, "rude");
    const server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const { code, broken } = await doctor({ TOKENFWD_SOCKET: path });
      expect([code, broken]).toEqual([40, [expect.stringMatching(/^bastion-socket (lost|dead)$/)]]);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });
});
