/*
 * The program of the bastion: the entry of the one file that esbuild makes of sign, keys, choria and all they need. That Node is new
 * enough has been looked at before the first line here runs (the bundle's banner). It must never need a file beside it.
 */
import { bastionHandlers, createBastionProgram } from "./bastion-program.js";
import { reportAsText, runProcess } from "./command-process.js";
import { splitArgv } from "./raw-argv.js";

void runProcess({
  async run(argv) {
    const { own, command } = splitArgv(argv);
    let status = 0;
    const program = createBastionProgram(
      bastionHandlers(command, (ended) => {
        status = ended;
      }),
    );
    await program.parseAsync(own, { from: "user" });
    return status;
  },
  hasCommand: () => false,
  report: reportAsText,
});
