/*
 * What doctor puts behind the socket on the bastion where the workstation has no token to show: a server with no slots, so that the way
 * can be proved all the same. It must never hold anything, and answers no call but those of the proof.
 */
import type { Duplex } from "node:stream";
import { createEmitter } from "../../base/events.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallResult, Cryptoki, CryptokiEvents, Origin } from "../../cryptoki/types.js";
import type { ForwardService } from "../../forward/types.js";
import { createP11KitServer } from "../../wire/p11kit/server.js";

const NOBODY: Origin = { kind: "local", destination: "", user: "", host: "", port: 0, hostKeySha256: null, connectId: "doctor" };

const EMPTY: Cryptoki = {
  events: createEmitter<CryptokiEvents>(),
  call: async (name, args) => {
    const answer = (outputs: object) => ({ rv: CKR.CKR_OK, ...outputs }) as CallResult<typeof name>;
    if (name === "C_GetSlotList") return answer({ slots: (args as { readonly room: number | null }).room === null ? 0 : [] });
    return name === "C_Initialize" || name === "C_Finalize"
      ? answer({})
      : ({ rv: CKR.CKR_FUNCTION_NOT_SUPPORTED } as CallResult<typeof name>);
  },
  close: async () => {},
};

/** A service that proves a forward and has no token. */
export function emptyService(): ForwardService {
  return { attach, expectedSlots: async () => [] };
}

function attach(stream: Duplex): ReturnType<ForwardService["attach"]> {
  let heard = (_options: Buffer): void => {};
  const server = createP11KitServer({
    cryptoki: EMPTY,
    client: "doctor",
    origin: NOBODY,
    write: (bytes) => void stream.write(bytes),
    onFirstFrameOptions(options) {
      heard(options);
      return null;
    },
    onViolation: () => stream.destroy(),
  });
  stream.on("data", (chunk: Buffer) => server.push(chunk));
  stream.on("error", () => stream.destroy());
  stream.on("end", () => stream.end());
  stream.on("close", () => server.end());
  return {
    onFirstFrameOptions(listener) {
      heard = listener;
    },
  };
}
