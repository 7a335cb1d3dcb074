/*
 * What the shape of the way costs by itself: a caller, a process in the middle and a process with the module, in Node, with frames
 * of a length and a number between them and nothing else: no policy, no sessions, no validation, no limits, nothing made ahead, and
 * asleep while they wait. It is driven as the other callers are.
 *
 *   bare-chain.mjs MODULE TOKEN_LABEL KEY_ID_HEX rsa|ec IN_FLIGHT
 */
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { speakLines } from "./caller-lines.mjs";

const CKM_SHA256_RSA_PKCS = 0x40;
const CKM_ECDSA = 0x1041;
const CKA_CLASS = 0;
const CKA_ID = 0x102;
const CKO_PRIVATE_KEY = 3;
const CKF_SERIAL_SESSION = 4;
const CKF_OS_LOCKING_OK = 2;
const CKU_USER = 1;
const PIPE_FD = 3;

/** Number and content of each frame that has come whole. */
function frames(onFrame) {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (rest.length - at >= 8) {
      const end = at + 8 + rest.readUInt32BE(at);
      if (end > rest.length) break;
      onFrame(rest.readUInt32BE(at + 4), rest.subarray(at + 8, end));
      at = end;
    }
    rest = rest.subarray(at);
  };
}

function frame(number, content) {
  const bytes = Buffer.allocUnsafe(8 + content.length);
  bytes.writeUInt32BE(content.length, 0);
  bytes.writeUInt32BE(number, 4);
  content.copy(bytes, 8);
  return bytes;
}

/** The next process of the chain, and the pipe to it. */
function next(role) {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), role, ...process.argv.slice(-5)], {
    stdio: ["ignore", "inherit", "inherit", "pipe"],
  });
  return child.stdio[3];
}

/** Signs everything that comes; the first frame is the PIN. */
function bareHost() {
  const [modulePath = "", label = "", id = "", algorithm = ""] = process.argv.slice(-5);
  const pkcs11js = createRequire(import.meta.url)("pkcs11js");
  const module = new pkcs11js.PKCS11();
  module.load(modulePath);
  module.C_Initialize({ flags: CKF_OS_LOCKING_OK });
  const slot = module.C_GetSlotList(true).find((one) => module.C_GetTokenInfo(one).label.trim() === label);
  const session = module.C_OpenSession(slot, CKF_SERIAL_SESSION);
  const mechanism = { mechanism: algorithm === "rsa" ? CKM_SHA256_RSA_PKCS : CKM_ECDSA };
  const room = Buffer.alloc(512);
  const pipe = new Socket({ fd: PIPE_FD, readable: true, writable: true });
  let key = null;
  const onFrame = (number, content) => {
    if (key === null) {
      module.C_Login(session, CKU_USER, content.toString());
      module.C_FindObjectsInit(session, [
        { type: CKA_CLASS, value: CKO_PRIVATE_KEY },
        { type: CKA_ID, value: Buffer.from(id, "hex") },
      ]);
      key = module.C_FindObjects(session, 1)[0];
      module.C_FindObjectsFinal(session);
      return;
    }
    module.C_SignInit(session, mechanism, key);
    pipe.write(frame(number, module.C_Sign(session, content, room)));
  };
  pipe.on("data", frames(onFrame)).on("end", () => process.exit());
}

/** Passes frames on, each to whom it is for. */
function bareAgent() {
  const up = new Socket({ fd: PIPE_FD, readable: true, writable: true });
  const down = next("host");
  const asked = new Map();
  let count = 0;
  const onRequest = (number, content) => {
    asked.set(++count, number);
    down.write(frame(count, content));
  };
  const onReply = (number, content) => {
    up.write(frame(asked.get(number), content));
    asked.delete(number);
  };
  up.on("data", frames(onRequest)).on("end", () => down.end());
  down.on("data", frames(onReply)).on("close", () => process.exit());
}

async function bareCaller() {
  const pipe = next("agent");
  const waiting = new Map();
  let count = 0;
  const onReply = (number, content) => {
    waiting.get(number)(content);
    waiting.delete(number);
  };
  pipe.on("data", frames(onReply));
  const sign = (data) =>
    new Promise((resolve) => {
      waiting.set(++count, resolve);
      pipe.write(frame(count, data));
    });
  await speakLines(async (pin) => {
    pipe.write(frame(0, Buffer.from(pin)));
    return Array.from({ length: Number(process.argv.at(-1)) }, () => sign);
  });
  pipe.end();
}

const roles = { host: bareHost, agent: bareAgent };
await (roles[process.argv[2]] ?? bareCaller)();
