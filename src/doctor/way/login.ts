/*
 * The log-in: what the bastion would take, and what was tried. It must never show an answer.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const loginCheck = defineCheck<DoctorContext>()({
  id: "login",
  title: "log-in",
  looks:
    "Whether the bastion takes one of the keys and methods that the ssh configuration allows, in the order in which connect tries them.",
  needs: ["host-key"],
  causes: {
    "login-key-refused": {
      status: "fail",
      code: "E_SSH_AUTH",
      usual: true,
      meaning:
        "The bastion took none of the keys. It says the same of a user name that it does not know, so both may be wrong. The line lists what was tried.",
      mend: "check the user name (USER@HOST); name the key with -i KEY or load it with ssh-add; or put its public half into ~/.ssh/authorized_keys on the bastion",
    },
    "login-nothing-to-try": {
      status: "fail",
      code: "E_SSH_AUTH",
      meaning: "There was no key to offer: no identity file exists, and no agent has one.",
      mend: "name the key with -i KEY, or load it into the agent: ssh-add KEY",
    },
    "login-too-many-keys": {
      status: "fail",
      code: "E_SSH_AUTH",
      meaning: "The server ended the log-in before the right key had its turn: each key that is offered counts as a try.",
      mend: "name the right one: -i KEY --ssh-option IdentitiesOnly=yes",
    },
    "login-needs-person": {
      status: "fail",
      code: "E_SSH_AUTH",
      meaning: "The bastion asks something, and there was nobody to answer, or BatchMode forbids to ask.",
      mend: "run it on a terminal and without BatchMode, or have a key accepted there",
    },
    "login-method": {
      status: "fail",
      code: "E_SSH_AUTH",
      meaning: "The bastion takes only methods that this version cannot do, such as GSSAPI, or wants a new password.",
      mend: 'log in once with ssh and do what it asks; or send to the bastion\'s administrator: "Please allow publickey for my account (AuthenticationMethods)."',
    },
  },
  async run({ way }) {
    await way.bastion();
    const { tried } = way.story();
    return pass(tried.at(-1) ?? "");
  },
});
