/*
 * What a person reads while a relay runs: that the token is to be touched, which broker answers, why one does not, and who was
 * turned away. It must never repeat itself with every client that tries again.
 */
import type { BrokerRelay } from "../../choria/relay/relay.js";
import type { TlsClient } from "../../choria/tls/tls-client.js";
import type { Ui } from "../ui.js";

export interface RelayReporter {
  /** Tells of these from now on; of brokers not before `ready`. */
  watch(relay: Pick<BrokerRelay, "events">, tls: Pick<TlsClient, "events">): void;
  /** The first broker has accepted the key: what was kept back is told. Else it is the error that the command ends with. */
  ready(): void;
}

/** One line about refused clients in so long. */
const REFUSED_MS = 10_000;

/** Tells on `ui`. */
export function relayReporter(ui: Ui, now: () => number = () => performance.now()): RelayReporter {
  /** The last text about each broker, so that it is said once. */
  const said = new Map<string, string>();
  let refused = 0;
  let refusedAtMs = Number.NEGATIVE_INFINITY;
  let held: string[] | null = [];

  function once(about: string, text: string): void {
    if (said.get(about) === text) return;
    said.set(about, text);
    if (held === null) ui.line(text);
    else held.push(text);
  }

  return {
    ready() {
      for (const text of held ?? []) ui.line(text);
      held = null;
    },
    watch(relay, tls) {
      tls.events.on("signing", ({ broker, attempt }) => {
        ui.line(`the token signs a TLS handshake with ${broker}${attempt > 1 ? `, try ${attempt}` : ""}: touch it if it blinks`);
      });
      tls.events.on("cut", ({ broker, signMs, brokerMs }) => {
        const seconds = (ms: number): string => (ms / 1000).toFixed(1);
        ui.line(`${broker} hung up after ${seconds(brokerMs)} s, and the token took ${seconds(signMs)} s`);
      });
      relay.events.on("upstream", ({ broker, cause }) => {
        once(broker, cause === null ? `the broker ${broker} answers` : cause.message);
        if (cause?.hint !== undefined) once(`${broker} hint`, `what may mend it: ${cause.hint}`);
        if (cause === null) said.delete(`${broker} hint`);
      });
      relay.events.on("fault", ({ error }) => {
        once("fault", error.message);
        if (error.hint !== undefined) once("fault hint", `what may mend it: ${error.hint}`);
      });
      tls.events.on("signed", () => {
        said.delete("fault");
        said.delete("fault hint");
      });
      relay.events.on("refused", ({ why }) => {
        refused += 1;
        if (now() - refusedAtMs < REFUSED_MS) return;
        refusedAtMs = now();
        ui.line(`turned away: ${why}${refused > 1 ? ` (${refused} so far)` : ""}`);
      });
    },
  };
}
