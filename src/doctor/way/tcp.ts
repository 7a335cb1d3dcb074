/*
 * A TCP connection to the SSH port, or through the jump host.
 */
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const tcpCheck = defineCheck<DoctorContext>()({
  id: "tcp",
  title: "connection",
  looks: "Whether something accepts a TCP connection on the SSH port within ConnectTimeout.",
  needs: ["resolve"],
  causes: {
    "port-closed": {
      status: "fail",
      code: "E_SSH",
      meaning: "The host is there and refused the connection: nothing listens on the port, or a firewall says so.",
      mend: 'check the port (-p, Port in ssh_config); or ask the bastion\'s administrator: "Does sshd run, and on which port?"',
    },
    "host-silent": {
      status: "fail",
      code: "E_SSH",
      meaning: "Nothing came back at all: the packets are thrown away somewhere, by a firewall or because the host is down.",
      mend: 'check the VPN and the address; or ask the bastion\'s administrator: "Is the host up, and may my address reach its SSH port?"',
    },
    "host-unreachable": {
      status: "fail",
      code: "E_SSH",
      meaning: "The network says that there is no way to the host.",
      mend: "check the network and the VPN: ip route get ADDRESS",
    },
    "jump-refused": {
      status: "fail",
      code: "E_SSH",
      meaning: "The jump host is reached and does not connect on to the bastion.",
      mend: 'check the name as the jump host sees it; or send to its administrator: "Please allow TCP forwarding to the bastion\'s SSH port for me: AllowTcpForwarding yes, and PermitOpen with that host."',
    },
  },
  async run({ way }) {
    await way.bastion();
    const { host, port } = await way.settings();
    return pass(`${printable(host)} port ${port}`);
  },
});
