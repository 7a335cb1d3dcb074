/*
 * The directory on the bastion that is to hold the socket. It must never be made where another would be found.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const runtimeDirCheck = defineCheck<DoctorContext>()({
  id: "runtime-dir",
  title: "runtime directory",
  looks:
    "Where the socket would lie on the bastion: the first of XDG_RUNTIME_DIR, /run/user/UID and /var/run/user/UID that is a directory, yours and 0700, else /tmp/tokenfwd-UID; and whether our own directory can be made there.",
  needs: ["remote-shell"],
  causes: {
    "no-runtime-dir": {
      status: "fail",
      code: "E_RUNTIME_DIR",
      usual: true,
      meaning: "None of the four places can be used. The line says of each why.",
      mend: "on the bastion: ls -ld /tmp/tokenfwd-$(id -u); what lies there must be a directory, yours, mode 0700, or nothing",
    },
    "runtime-dir-foreign": {
      status: "fail",
      code: "E_RUNTIME_DIR",
      meaning: "Our directory exists there and belongs to somebody else, so that they could take the socket away.",
      mend: 'send to the bastion\'s administrator: "Please remove the directory tokenfwd in my runtime directory: it belongs to another user."',
    },
    "runtime-dir-open": {
      status: "fail",
      code: "E_RUNTIME_DIR",
      meaning: "Our directory exists there and others may look into it or write to it.",
      mend: "on the bastion: chmod 0700 DIRECTORY, after looking what lies in it",
    },
    "runtime-dir-read-only": {
      status: "fail",
      code: "E_RUNTIME_DIR",
      meaning: "The runtime directory is right, and nothing can be made in it: it is on a file system that is full or read-only.",
      mend: "on the bastion: touch DIRECTORY/x says why (df DIRECTORY, mount); then ask the administrator to mend that",
    },
    "runtime-dir-unfit": {
      status: "fail",
      code: "E_RUNTIME_DIR",
      meaning: "Something else lies where our directory would be: a symbolic link, or a file.",
      mend: "on the bastion: ls -ld DIRECTORY; remove it if it is yours",
    },
    "runtime-dir-tmp": {
      status: "warn",
      code: null,
      meaning:
        "The session has no runtime directory that is fit, so the socket lies below /tmp/tokenfwd-UID. There is no path then at which stock programs look by themselves: run them as CMD, or with the line that connect prints.",
      mend: 'log in so that XDG_RUNTIME_DIR is set; or send to the bastion\'s administrator: "Please enable pam_systemd for sshd (UsePAM yes), so that /run/user/{uid} is made."',
    },
  },
  async run({ way }, { broken }) {
    const { probe } = (await way.bastion()).looked;
    // What is wrong with the path or the socket in it is the next checks' to say.
    await way.place().catch((error: unknown) => {
      if (!(error instanceof TokenfwdError) || error.code === "E_RUNTIME_DIR") throw error;
    });
    const { runtimeDir, runtimeDirFrom, skipped, uid } = probe;
    if (runtimeDirFrom !== "tmp") return pass(printable(runtimeDir));
    const why = skipped.length === 0 ? "no other is there" : `not fit: ${skipped.join(", ")}`;
    return broken("runtime-dir-tmp", `${printable(runtimeDir)}, because ${why}`, { uid: String(uid) });
  },
});
