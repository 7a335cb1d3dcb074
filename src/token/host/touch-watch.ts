/*
 * Notices a private-key call that waits for a finger on the device: no module says so, so a call that takes longer than
 * a token needs to compute is taken for one. It only tells; it stops nothing.
 */
import { createAlarm } from "../../base/alarm.js";
import type { Emitter } from "../../base/events.js";
import { paddedText } from "../../base/printable.js";
import type { CallClass, CallName } from "../../cryptoki/calls.js";
import { CKR } from "../../cryptoki/rv.js";
import type { CallResult } from "../../cryptoki/types.js";
import type { HostEvents } from "./host.js";

export interface TouchWatch {
  /** A call of this client has gone to the module. */
  begin(cls: CallClass, args: object, client: string): void;
  /** It has come back; `name` null when it was lost. */
  end(name: CallName | null, args: object, result: CallResult): void;
  /** The process is a new one: its sessions are others. */
  reset(): void;
}

export function createTouchWatch(events: Emitter<HostEvents>, noticeMs: number): TouchWatch {
  const slots = new Map<bigint, bigint>();
  const labels = new Map<bigint, string>();
  const notice = createAlarm();
  let waiting: { readonly slot: bigint; readonly token: string; readonly client: string } | null = null;

  return {
    begin(cls, args, client) {
      if (cls !== "sign" && cls !== "decrypt") return;
      const { session } = args as { session?: bigint };
      notice.set(noticeMs, () => {
        const slot = slots.get(session ?? -1n) ?? 0n;
        waiting = { slot, token: labels.get(slot) ?? "", client };
        events.emit("prompt", { kind: "touch", state: "open", token: waiting.token, triesLeft: null, client });
        events.emit("touch", { slot, waiting: true, client });
      });
    },
    end(name, args, result) {
      notice.clear();
      if (waiting !== null) {
        const { slot, token, client } = waiting;
        waiting = null;
        events.emit("prompt", { kind: "touch", state: "closed", token, triesLeft: null, client });
        events.emit("touch", { slot, waiting: false, client });
      }
      if (result.rv !== CKR.CKR_OK) return;
      const { slot, session } = args as { slot?: bigint; session?: bigint };
      const outs = result as { session?: bigint; label?: Buffer };
      if (name === "C_OpenSession" && slot !== undefined && outs.session !== undefined) slots.set(outs.session, slot);
      else if (name === "C_CloseSession" && session !== undefined) slots.delete(session);
      else if (name === "C_GetTokenInfo" && slot !== undefined && outs.label) labels.set(slot, paddedText(outs.label));
    },
    reset() {
      slots.clear();
    },
  };
}
