/*
 * The path at which stock programs look by themselves, and who has it. It must never take it away from anybody: connect links it only
 * when it is free.
 */
import { printable, shellWord } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const wellKnownCheck = defineCheck<DoctorContext>()({
  id: "well-known",
  title: "path of stock programs",
  looks:
    "Whether the path at which p11-kit's client looks without a variable, RT/p11-kit/pkcs11, is free for a link to our socket, or who has it.",
  needs: ["runtime-dir"],
  causes: {
    "p11-kit-socket-unit": {
      status: "warn",
      code: null,
      meaning:
        "systemd's p11-kit-server.socket of your account listens there. Programs that look by themselves get that server, which knows nothing of your token.",
      mend: "on the bastion: systemctl --user disable --now p11-kit-server.socket p11-kit-server.service",
    },
    "path-in-use": {
      status: "warn",
      code: null,
      meaning:
        "Somebody listens on that path: a p11-kit server, or an ssh with the recipe's RemoteForward. It is left alone, and programs that look by themselves get it in place of your token.",
      mend: "on the bastion: fuser {path}; end it if it is yours. Else use CMD, or the line export P11_KIT_SERVER_ADDRESS=... that connect prints",
    },
    "path-unfit": {
      status: "warn",
      code: null,
      meaning:
        "The directory p11-kit of the runtime directory, or what lies in it, is of another kind, somebody else's or open to others. It is left alone.",
      mend: "on the bastion: ls -ld {directory} {path}; it must be a directory of yours that only you can write to, with a socket, a link or nothing in it",
    },
  },
  async run({ way }, { broken }) {
    const { wellKnown, unit } = await way.survey();
    const { path, state, holder } = wellKnown;
    const facts = { path: shellWord(path), directory: shellWord(path.replace(/\/[^/]*$/, "")) };
    const who = holder === null ? "" : `, by process ${holder}`;
    switch (state) {
      case "answers":
      case "silent":
      case "unknown":
        if (unit) return broken("p11-kit-socket-unit", `${printable(path)} is systemd's p11-kit-server.socket`, facts);
        return broken("path-in-use", `${printable(path)} is in use${who}`, facts);
      case "unfit":
        return broken("path-unfit", `${printable(path)} cannot be used`, facts);
      case "dead":
        return pass("a dead socket lies there, which connect replaces");
      case "ours":
        return pass("a link to a socket of ours lies there");
      case "none":
        return pass("free");
    }
  },
});
