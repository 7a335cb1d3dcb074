/*
 * What lies on the path of our socket already, and who owns it. A dead one is taken away, as connect does it; it must never touch a
 * live one.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable, shellWord } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";
import type { WayFacts } from "./facts.js";

export const socketCheck = defineCheck<DoctorContext>()({
  id: "socket",
  title: "socket's owner",
  looks:
    "What lies on the path of our socket: nothing, a socket that nobody listens on any more, one of another connect, or somebody else's.",
  needs: ["path"],
  causes: {
    "socket-foreign": {
      status: "fail",
      code: "E_SOCKET_FOREIGN",
      usual: true,
      meaning: "Something answers on our path that no connect of ours made. Whoever listens there would be given your requests.",
      mend: "on the bastion, find out who listens: fuser SOCKET; stop it if it is yours (a p11-kit server, for example), then connect again",
    },
    "socket-doubtful": {
      status: "fail",
      code: "E_SOCKET_FOREIGN",
      meaning:
        "A socket lies on our path, and whether somebody listens there cannot be seen: sshd opens none for us, and the bastion has no perl, python3 or nc.",
      mend: "on the bastion: fuser SOCKET; when it names nobody: rm SOCKET",
    },
    "socket-is-none": {
      status: "fail",
      code: "E_SOCKET_FOREIGN",
      meaning: "A file or a directory lies where our socket would be.",
      mend: "look at it there, and remove it: rm -r SOCKET",
    },
    "too-many-connects": {
      status: "fail",
      code: "E_SOCKET_FOREIGN",
      meaning: "Nine connects of this workstation live on this account already.",
      mend: "end some of them; on the workstation: pgrep -fa 'tokenfwd connect'",
    },
    "stale-socket": {
      status: "warn",
      code: null,
      meaning:
        "A socket of an earlier connection lay there, and nobody listened on it any more: the connection was cut, or the shell that cleans up was killed. connect replaces such a socket by itself, and doctor has taken it away.",
      mend: "nothing is to be done; if it comes again: does something on the bastion kill the processes of a session before they can clean up (KillUserProcesses of systemd-logind)?",
    },
  },
  async run({ way }, { broken }) {
    const { socket, cleared } = await way.place().catch(async (thrown: unknown) => {
      throw await withHolder(TokenfwdError.from(thrown), way);
    });
    return cleared ? broken("stale-socket", `a dead one lay at ${shellWord(socket)}`) : pass("nothing lies there");
  },
});

/** The error about a live socket, with the process that has it where the bastion lets us see that. */
async function withHolder(error: TokenfwdError, way: WayFacts): Promise<TokenfwdError> {
  if (error.reason !== "socket-foreign") return error;
  const { ownHolder } = await way.survey();
  if (ownHolder === null) return error;
  const { code, message, hint, reason } = error;
  return new TokenfwdError(code, `${message}; it is of process ${printable(ownHolder)}`, {
    ...(hint === undefined ? {} : { hint }),
    reason,
    cause: error,
  });
}
