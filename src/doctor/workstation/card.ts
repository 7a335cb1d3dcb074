/*
 * The way to a smart card, where the module goes through PC/SC: the daemon, and who else is at the card. It is looked at before the
 * token, because a token that nobody can see is mostly mended here.
 */
import { printable } from "../../base/printable.js";
import { findCandidates } from "../../token/discovery/candidates.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import { type CardUser, cardUsers, pcscDaemon, usesPcsc } from "./pcsc.js";

const START = "systemctl start pcscd.socket (Debian and Fedora: the package pcscd or pcsc-lite)";

export const cardCheck = defineCheck<DoctorContext>()({
  id: "card",
  title: "card reader",
  looks: "Where the module reads cards through PC/SC: whether pcscd answers, and which other programs are at the card.",
  needs: ["module"],
  limitMs: 90_000,
  causes: {
    "no-daemon": {
      status: "fail",
      code: "E_TOKEN_NOT_FOUND",
      meaning: "The module reads cards through PC/SC, and pcscd, which does that, does not answer. No card can be seen.",
      mend: START,
    },
    "no-daemon-perhaps": {
      status: "warn",
      code: null,
      meaning: "No token was found, one of the modules here reads cards through PC/SC, and pcscd does not answer.",
      mend: `if your token is a card or a YubiKey: ${START}`,
    },
    held: {
      status: "warn",
      code: null,
      meaning:
        "No token can be seen, and another program is at the card. GnuPG's scdaemon takes a card for itself; others may do so for a while.",
      mend: "end it, and look again ({command}); for scdaemon, pcsc-shared in ~/.gnupg/scdaemon.conf lets others in",
    },
  },
  async run({ token, options, env }, { broken, signal }) {
    const seen = await token.inspection().then(
      () => true,
      () => false,
    );
    const named = await token.module().catch(() => options.module);
    const paths =
      named === null ? findCandidates().flatMap(({ path, denied }) => (path === null || denied !== null ? [] : [path])) : [named];
    let through: string | null = null;
    for (const path of paths) if (through === null && (await usesPcsc(path))) through = path;
    if (through === null) return pass(named === null ? "no module here uses PC/SC" : "this module does not use PC/SC");
    const daemon = await pcscDaemon(env);
    if (daemon === "none" && !seen) {
      const detail = `pcscd does not answer, and ${printable(through)} needs it`;
      return named === null ? broken("no-daemon-perhaps", detail) : broken("no-daemon", detail);
    }
    const host = await token.host().catch(() => null);
    const users = process.platform === "linux" ? await cardUsers([process.pid, host?.pid], signal) : [];
    const names = users.map(({ pid, name }) => `${printable(name)} (process ${pid})`).join(", ");
    if (!seen && users.length > 0) return broken("held", `no token is seen, and the card is used by ${names}`, { command: ending(users) });
    const others = users.length === 0 ? "" : `; also at the card: ${names}`;
    return pass(`${daemon === "answers" ? "pcscd answers" : "the system's own PC/SC"}${others}`);
  },
});

function ending(users: readonly CardUser[]): string {
  if (users.some(({ name }) => name === "scdaemon")) return "gpgconf --kill scdaemon";
  return `kill ${users.map(({ pid }) => pid).join(" ")}`;
}
