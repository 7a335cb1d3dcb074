/*
 * The length of the socket's path on the bastion, which a deep runtime directory can make too long. It must never make anything there
 * that would have to be taken away again.
 */
import { TokenfwdError } from "../../base/errors.js";
import { printable } from "../../base/printable.js";
import { defineCheck, pass } from "../check.js";
import type { DoctorContext } from "../context.js";

export const pathCheck = defineCheck<DoctorContext>()({
  id: "path",
  title: "socket's path",
  looks: "Whether the path of the socket fits into a Unix socket address on the bastion: 107 bytes on Linux, 103 elsewhere.",
  needs: ["runtime-dir"],
  causes: {
    "path-too-long": {
      status: "fail",
      code: "E_PATH_TOO_LONG",
      usual: true,
      meaning: "The runtime directory's own path is so long that no socket can have a name in it.",
      mend: "set XDG_RUNTIME_DIR on the bastion to a shorter directory of yours, mode 0700",
    },
  },
  async run({ way }) {
    try {
      const { socket } = await way.place();
      return pass(`${Buffer.byteLength(socket)} bytes: ${printable(socket)}`);
    } catch (error) {
      if (error instanceof TokenfwdError && error.code === "E_SOCKET_FOREIGN") return pass("it fits");
      throw error;
    }
  },
});
