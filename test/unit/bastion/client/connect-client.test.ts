/*
 * The client against peers that do what real ones do on a bad day: silence, other protocols, a hang-up in the middle.
 */
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connectClient } from "../../../../src/bastion/client/connect-client.js";
import { clientError } from "../../../../src/bastion/client/errors.js";
import { boolAttribute, bytesAttribute, CKA, ulongAttribute } from "../../../../src/cryptoki/attributes.js";
import { CKF, CKK, CKO } from "../../../../src/cryptoki/constants.js";
import { KeyError } from "../../../../src/cryptoki/keys/key-error.js";
import { localContext } from "../../../../src/cryptoki/local-context.js";
import { CKM } from "../../../../src/cryptoki/mechanisms.js";
import { CKR } from "../../../../src/cryptoki/rv.js";
import type { Attribute, Cryptoki, Mechanism } from "../../../../src/cryptoki/types.js";
import { createP11KitServer } from "../../../../src/wire/p11kit/server.js";
import { CONNECTION_ENDED } from "../../../../src/wire/rpc/client.js";
import { MAGIC, RpcError } from "../../../../src/wire/rpc/messages.js";
import { createRpcServer } from "../../../../src/wire/rpc/server.js";
import { createPaperToken, type PaperToken } from "../../../support/paper-token.js";
import { agent, failure, REQUEST, SIGNED, TIMES } from "./peers.js";

let dir: string;
let path: string;
let server: Server;
let sockets: Socket[];
/** What happens to each connection, in order; the last one goes on for all others. */
let scenes: ((socket: Socket) => void)[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "tokenfwd-peer-"));
  path = join(dir, "s");
  sockets = [];
  scenes = [];
  server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    const scene = scenes.length > 1 ? scenes.shift() : scenes[0];
    scene?.(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(dir, { recursive: true, force: true });
});

const connected = (snapshot = false, env: NodeJS.ProcessEnv = { TOKENFWD_SOCKET: path }) =>
  connectClient({ env, snapshot }, { times: TIMES });

describe("a peer that says nothing", () => {
  it("is an error of the socket, and the request that was sent to it goes nowhere else", async () => {
    const received: Buffer[] = [];
    scenes = [(socket) => socket.on("data", (chunk) => received.push(chunk))];
    await using client = await connected();
    const error = await failure(client.signer.sign(REQUEST));
    expect([error.code, error.exitCode]).toEqual(["E_AGENT_SOCKET", 40]);
    expect(error.message).toMatch(/takes connections and does not answer/);
    expect(sockets).toHaveLength(1);
    expect(Buffer.concat(received).subarray(0, 8)).toEqual(MAGIC);
  });

  it("is an error of the connecting where it is not known to be ours, after p11-kit was tried", async () => {
    scenes = [(socket) => socket.resume()];
    expect((await failure(connectClient({ socket: path, env: {} }, { times: TIMES }))).code).toBe("E_AGENT_SOCKET");
    expect(sockets).toHaveLength(2);
  });
});

describe("a peer of another kind", () => {
  it.each([
    ["answers HTTP", (socket: Socket) => void socket.write("HTTP/1.1 400 Bad Request\r\n\r\n")],
    ["hangs up at once", (socket: Socket) => void socket.end()],
    [
      "answers half of the magic and then something else",
      (socket: Socket) => void socket.write(Buffer.concat([MAGIC.subarray(0, 4), Buffer.alloc(4)])),
    ],
  ])("that %s is refused by name", async (_what, scene) => {
    scenes = [scene];
    const error = await failure(connectClient({ socket: path, env: {} }, { times: TIMES }));
    expect(error.code).toBe("E_AGENT_SOCKET");
    expect(error.message).toContain(path);
  });

  it("whose hello is an error says why", async () => {
    scenes = [
      (socket) => {
        const rpc = createRpcServer({
          handlers: {
            hello: async () => {
              throw new RpcError("internal", "not today");
            },
            sign: async () => SIGNED,
            call: async () => ({ rv: 0, outs: {} }),
            status: () => {
              throw new RpcError("internal", "no");
            },
            subscribe: () => {},
          },
          write: (bytes) => void socket.write(bytes),
        });
        socket.on("data", (chunk) => rpc.push(chunk));
      },
    ];
    expect((await failure(connected(true))).message).toContain("not today");
  });
});

describe("a connection that ends", () => {
  it("while a signature is made is reported as such, and the request is not sent again", async () => {
    let asked = 0;
    scenes = [
      agent(async () => {
        asked += 1;
        for (const socket of sockets) socket.destroy();
        return SIGNED;
      }),
    ];
    await using client = await connected();
    const error = await failure(client.signer.sign(REQUEST));
    expect(error.code).toBe("E_AGENT_LOST");
    expect(error.message).toContain("a signature may have been made");
    expect(asked).toBe(1);
  });

  it("is made anew by the next call, for many callers at once only one", async () => {
    scenes = [agent(async () => SIGNED)];
    await using client = await connected();
    await client.signer.sign(REQUEST);
    const [first] = sockets;
    const gone = new Promise((resolve) => first?.once("close", resolve));
    first?.destroy();
    await gone;
    // The client's side hears of it in its own time: until then a request is lost, afterwards it is not.
    while ((await client.signer.sign(REQUEST).catch(() => null)) === null) await new Promise(setImmediate);
    const made = await Promise.all(Array.from({ length: 20 }, () => client.signer.sign(REQUEST)));
    expect(made.every(({ signature }) => signature.equals(SIGNED.signature))).toBe(true);
    expect(sockets).toHaveLength(2);
  });

  it("answers the Cryptoki calls of before with a CK_RV and those after it over a new one", async () => {
    scenes = [(socket) => socket.once("data", () => socket.destroy()), agent(async () => SIGNED)];
    const client = await connectClient({ env: { TOKENFWD_SOCKET: path }, snapshot: false }, { times: TIMES });
    const ctx = localContext("test", new AbortController().signal);
    const rvs: number[] = [];
    for (let index = 0; index < 3; index += 1) rvs.push((await client.cryptoki.call("C_Finalize", {}, ctx)).rv);
    expect(rvs.at(-1)).toBe(CKR.CKR_OK);
    await client.close();
    expect((await client.cryptoki.call("C_Finalize", {}, ctx)).rv).toBe(CKR.CKR_DEVICE_REMOVED);
    expect((await failure(client.signer.sign(REQUEST))).code).toBe("E_AGENT_LOST");
  });
});

it("more requests than an agent takes at once wait their turn", async () => {
  let running = 0;
  let most = 0;
  scenes = [
    agent(async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise(setImmediate);
      running -= 1;
      return SIGNED;
    }),
  ];
  await using client = await connected();
  expect(await Promise.all(Array.from({ length: 300 }, () => client.signer.sign(REQUEST)))).toHaveLength(300);
  expect(most).toBeLessThanOrEqual(64);
});

it("a request that is taken back is taken back at the agent", async () => {
  const stop = new AbortController();
  let seen = (): void => {};
  const cancelled = new Promise<void>((resolve) => {
    seen = resolve;
  });
  scenes = [
    agent(
      (_request, op) =>
        new Promise((_resolve, reject) => {
          op.signal.addEventListener("abort", () => {
            seen();
            reject(new RpcError("cancelled", "taken back"));
          });
          stop.abort(new Error("enough"));
        }),
    ),
  ];
  await using client = await connected();
  await expect(client.signer.sign(REQUEST, { signal: stop.signal })).rejects.toThrow("enough");
  await cancelled;
});

it("nothing anywhere is an error that says where it was looked", async () => {
  const error = await failure(connectClient({ env: { XDG_RUNTIME_DIR: dir } }, { times: TIMES }));
  expect([error.code, error.exitCode]).toEqual(["E_AGENT_NOT_FOUND", 40]);
  expect(error.message).toContain(join(dir, "tokenfwd/agent.sock"));
  expect(error.message).toContain(join(dir, "p11-kit/pkcs11"));
});

it.each([
  [new RpcError("cryptoki", "no", { rv: CKR.CKR_PIN_INCORRECT, call: "C_Login" }), "E_PIN_WRONG", 30],
  [new RpcError("cryptoki", "no", { rv: CKR.CKR_PIN_LOCKED, call: "C_Login" }), "E_PIN_LOCKED", 31],
  [new RpcError("cryptoki", "no", { rv: CKR.CKR_FUNCTION_CANCELED, call: "C_Login" }), "E_PIN_CANCELLED", 32],
  [new RpcError("cryptoki", "no", { rv: CKR.CKR_FUNCTION_REJECTED, call: "C_Sign" }), "E_REFUSED", 32],
  [new RpcError("cryptoki", "no", { rv: CKR.CKR_TOKEN_NOT_PRESENT, call: "C_OpenSession" }), "E_TOKEN_NOT_FOUND", 20],
  [new RpcError("cryptoki", "no", { rv: CKR.CKR_DEVICE_ERROR, call: "C_Sign" }), "E_MODULE_FAULT", 21],
  [new RpcError("key-not-found", "no"), "E_KEY_NOT_FOUND", 20],
  [new RpcError("key-ambiguous", "no"), "E_KEY_CHOICE", 20],
  [new RpcError("key-mismatch", "no"), "E_KEY_MISMATCH", 20],
  [new RpcError("mechanism", "no"), "E_MECHANISM", 20],
  [new RpcError("bad-request", "no"), "E_USAGE", 2],
  [new RpcError("deadline", "no"), "E_AGENT_LOST", 40],
  [new RpcError("internal", CONNECTION_ENDED), "E_AGENT_LOST", 40],
  [new RpcError("internal", "no"), "E_BUG", 70],
  [new RpcError("version", "no"), "E_AGENT_SOCKET", 40],
  [new KeyError("mismatch", "no"), "E_KEY_MISMATCH", 20],
  [new KeyError("cryptoki", "no", { rv: CKR.CKR_MECHANISM_INVALID, call: "C_SignInit" }), "E_MECHANISM", 20],
] as const)("%s is an error for people with its own exit status", (thrown, code, exitCode) => {
  const error = clientError(thrown);
  expect([error.code, error.exitCode]).toEqual([code, exitCode]);
});

it("a text of the agent's cannot play with the terminal", () => {
  const error = clientError(new RpcError("mechanism", "\u001b[2Jgone", { hint: "\u202eevil" }));
  expect(error.message).toBe("\\x1b[2Jgone");
  expect(error.hint).not.toContain("\u202e");
});

/** A stock server on a paper token that takes no version but 0, as releases before 0.24.1. */
function oldStockServer(token: PaperToken): (socket: Socket) => void {
  return (socket) => {
    const signal = new AbortController().signal;
    const { origin } = localContext("old", signal);
    const session: Cryptoki = {
      events: token.events,
      close: async () => {},
      call: async (name, args, ctx) =>
        name === "C_Initialize" || name === "C_Finalize" ? ({ rv: CKR.CKR_OK } as never) : await token.call(name, args, ctx),
    };
    const p11 = createP11KitServer({ cryptoki: session, client: "old", origin, write: (bytes) => void socket.write(bytes) });
    socket.once("data", (first: Buffer) => {
      if (first[0] !== 0) {
        socket.destroy();
        return;
      }
      p11.push(first);
      socket.on("data", (chunk) => p11.push(chunk));
    });
    socket.on("close", () => p11.end());
  };
}

function rsaPair(): Attribute[][] {
  const jwk = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "jwk" });
  return [CKO.CKO_PUBLIC_KEY, CKO.CKO_PRIVATE_KEY].map((cls) => [
    ulongAttribute(CKA.CKA_CLASS, cls),
    boolAttribute(CKA.CKA_TOKEN, true),
    boolAttribute(CKA.CKA_PRIVATE, cls === CKO.CKO_PRIVATE_KEY),
    bytesAttribute(CKA.CKA_LABEL, Buffer.from("no id")),
    ulongAttribute(CKA.CKA_KEY_TYPE, CKK.CKK_RSA),
    bytesAttribute(CKA.CKA_MODULUS, Buffer.from(jwk.n ?? "", "base64url")),
    bytesAttribute(CKA.CKA_PUBLIC_EXPONENT, Buffer.from([1, 0, 1])),
  ]);
}

describe("a stock server that takes no version but 0", () => {
  const PSS_ONLY = { ...REQUEST, key: { uri: "pkcs11:object=no%20id", spki: null }, mechanism: CKM.CKM_SHA256_RSA_PKCS_PSS };
  const token = () => createPaperToken(rsaPair(), [CKM.CKM_RSA_PKCS, CKM.CKM_RSA_PKCS_PSS, CKM.CKM_SHA256_RSA_PKCS_PSS]);

  it("is offered the magic, version 2 and then 0, and signs with a key that has only a label", async () => {
    const paper = token();
    scenes = [oldStockServer(paper)];
    const client = await connectClient({ socket: path, env: {}, pin: async () => Buffer.from("1234") }, { times: TIMES });
    expect(client.protocol).toBe("p11-kit");
    expect(sockets).toHaveLength(3);
    expect((await client.keys()).map(({ uri }) => uri)).toEqual([expect.stringMatching(/object=no%20id;type=private$/)]);
    const seen: unknown[] = [];
    paper.before = (name, args) => void (name === "C_SignInit" && seen.push((args["mechanism"] as Mechanism).type));
    const { mechanism } = await client.signer.sign(PSS_ONLY);
    // It would misread the parameter of the mechanism that hashes.
    expect([mechanism, seen]).toEqual([CKM.CKM_SHA256_RSA_PKCS_PSS, [CKM.CKM_RSA_PKCS_PSS]]);
    expect(await client.status()).toBeNull();
    await client.close();
  });

  it("does not get the last try of a PIN, nor one that is locked", async () => {
    const paper = token();
    scenes = [oldStockServer(paper)];
    let questions = 0;
    const pin = async () => {
      questions += 1;
      return Buffer.from("1234");
    };
    await using client = await connectClient({ socket: path, env: {}, pin }, { times: TIMES });
    for (const flag of [CKF.CKF_USER_PIN_FINAL_TRY, CKF.CKF_USER_PIN_LOCKED]) {
      paper.flags = CKF.CKF_TOKEN_INITIALIZED | CKF.CKF_LOGIN_REQUIRED | flag;
      expect((await failure(client.signer.sign(PSS_ONLY))).code).toBe("E_PIN_LOCKED");
    }
    expect([questions, paper.calls.includes("C_Login")]).toEqual([0, false]);
  });

  it("that does not come to an end is given up when the time is over", async () => {
    const paper = token();
    scenes = [oldStockServer(paper)];
    await using client = await connectClient({ socket: path, env: {}, pin: async () => Buffer.from("1234") }, { times: TIMES });
    paper.before = (name) => (name === "C_Sign" ? new Promise(() => {}) : undefined);
    const error = await failure(client.signer.sign(PSS_ONLY, { deadlineMs: 50 }));
    expect([error.code, error.message]).toEqual(["E_AGENT_LOST", "the agent did not answer in the time given"]);
  });
});
