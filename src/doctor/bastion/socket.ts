/*
 * The agent's socket on the bastion, found and opened exactly as tokenfwd sign does it.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { findSockets, socketFault } from "../../bastion/client/find-socket.js";
import { defineCheck, pass } from "../check.js";
import type { BastionContext } from "./context.js";

export const bastionSocketCheck = defineCheck<BastionContext>()({
  id: "bastion-socket",
  title: "agent's socket",
  looks:
    "Where the agent's socket is: --socket, TOKENFWD_SOCKET, P11_KIT_SERVER_ADDRESS, TOKENFWD_AGENT, then the usual places; and whether it is safe and something listens on it.",
  causes: {
    none: {
      status: "fail",
      code: "E_AGENT_NOT_FOUND",
      usual: true,
      meaning: "There is no socket at any of the places where one can be: no tokenfwd connect of yours leads to this machine now.",
      mend: "at the workstation: tokenfwd connect HOST; or run this under it: tokenfwd connect HOST --tools -- tokenfwd doctor",
    },
    "left-over": {
      status: "fail",
      code: "E_AGENT_NOT_FOUND",
      meaning: "There is a socket and nobody listens on it: the connection that made it is gone, and could not clean up.",
      mend: "at the workstation: tokenfwd connect HOST; it replaces what is dead",
    },
    unsafe: {
      status: "fail",
      code: "E_AGENT_SOCKET",
      meaning:
        "The socket, or a directory on the way to it, belongs to somebody else or can be changed by others, so nothing is sent into it.",
      mend: "the line names what is open or whose it is; a runtime directory is yours with mode 0700 (ls -ld DIRECTORY)",
    },
    "several-workstations": {
      status: "fail",
      code: "E_AGENT_SOCKET",
      meaning: "Several workstations are connected to this account, perhaps of several people, and none is chosen for you.",
      mend: "name yours with --socket or TOKENFWD_SOCKET; tokenfwd connect says at its workstation which socket is its own",
    },
    dead: {
      status: "fail",
      code: "E_AGENT_SOCKET",
      usual: true,
      meaning: "The socket that was named is gone, or nobody listens on it, or it does not answer.",
      mend: "start tokenfwd connect at the workstation again, or name another socket with --socket",
    },
    lost: {
      status: "fail",
      code: "E_AGENT_LOST",
      usual: true,
      meaning: "Something took the connection and ended it before it answered.",
      mend: "look at the workstation: tokenfwd connect says there why it refuses",
    },
  },
  async run({ client, env, uid, socket }, { broken }) {
    try {
      return pass(printable((await client()).socket));
    } catch (thrown) {
      const error = TokenfwdError.from(thrown);
      if (error.reason === "several-workstations") throw error;
      if (error.code !== "E_AGENT_NOT_FOUND" && error.code !== "E_AGENT_SOCKET") throw error;
      const places = findSockets({ env, uid, ...(socket === null ? {} : { socket }) });
      const faults = places.map(({ path }) => ({ path, fault: socketFault(path, uid) }));
      const unsafe = faults.find(({ fault }) => fault !== null && !/does not exist|link to nothing|is not a socket/.test(fault));
      if (unsafe !== undefined) return broken("unsafe", `${printable(unsafe.path)} ${unsafe.fault}`);
      const there = faults.find(({ fault }) => fault === null);
      if (error.code === "E_AGENT_NOT_FOUND" && there !== undefined)
        return broken("left-over", `nobody listens on ${printable(there.path)}`);
      throw error;
    }
  },
});
