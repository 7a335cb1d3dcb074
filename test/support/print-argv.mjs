/* Prints the command after `--` as hex words, as the compiled program sees it. It must never do more: it is run by a test. */
import { splitArgv } from "../../dist/cli/raw-argv.js";

const { command } = splitArgv(process.argv.slice(2));
process.stdout.write(JSON.stringify((command ?? []).map((word) => Buffer.from(word).toString("hex"))));
