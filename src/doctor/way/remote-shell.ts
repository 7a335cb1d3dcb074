/*
 * The shell that the log-in gives: it starts, runs what we send, and answers as a POSIX shell does.
 */
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

const MAX_SHOWN = 120;

export const remoteShellCheck = defineCheck<DoctorContext>()({
  id: "remote-shell",
  title: "shell on the bastion",
  looks: "Whether the log-in runs the command that is sent, and nothing else, and whether /bin/sh there answers as a POSIX shell does.",
  needs: ["login"],
  causes: {
    "no-session": {
      status: "fail",
      code: "E_REMOTE_SHELL",
      meaning: "sshd starts no session for this account at all.",
      mend: 'send to the bastion\'s administrator: "Please allow sessions for my account: MaxSessions 2 or more in sshd_config, and a login shell."',
    },
    "forced-command": {
      status: "fail",
      code: "E_REMOTE_SHELL",
      meaning: "Your key's line in authorized_keys has command=..., which runs in place of everything that is sent.",
      mend: 'in ~/.ssh/authorized_keys on the bastion, take command="..." away from this key\'s line, or use another key: -i KEY',
    },
    "command-not-run": {
      status: "fail",
      code: "E_REMOTE_SHELL",
      usual: true,
      meaning:
        "Something else ran in place of what was sent: a ForceCommand of sshd, a login shell such as nologin, or a start file that ends the shell. The line has what it said.",
      mend: 'send to the bastion\'s administrator: "Please give my account a login shell and no ForceCommand, in sshd_config or in a Match block."',
    },
    "shell-answers-otherwise": {
      status: "fail",
      code: "E_REMOTE_SHELL",
      meaning: "The shell started and then answered something that no POSIX shell would.",
      mend: "try it: ssh DESTINATION 'exec /bin/sh -c \"echo ok\"' must print ok and nothing else",
    },
    "shell-silent": {
      status: "fail",
      code: "E_REMOTE_SHELL",
      meaning: "The shell started and said nothing in 15 seconds: a start file waits for something, or the host is overloaded.",
      mend: "try it: ssh DESTINATION 'exec /bin/sh -c \"echo ok\"'; look for a read or a slow command in the start files of the shell there",
    },
    "shell-prints-without-end": {
      status: "fail",
      code: "E_REMOTE_SHELL",
      meaning: "The log-in prints more than 256 KiB before it runs what was sent.",
      mend: "find what prints in the start files of the shell there: ssh DESTINATION true | head",
    },
    "shell-prints": {
      status: "warn",
      code: null,
      meaning:
        "A start file of the login shell prints something in sessions that nobody reads. tokenfwd leaves it out; CMD's output begins with it, and scp and git over ssh break.",
      mend: "in the start file there, print only for people: case $- in *i*) ...;; esac",
    },
  },
  async run({ way }, { broken }) {
    const { said, probe } = (await way.bastion()).looked;
    return said === "" ? pass(`${probe.os}, user id ${probe.uid}`) : broken("shell-prints", `it prints: ${said.slice(0, MAX_SHOWN)}`);
  },
});
