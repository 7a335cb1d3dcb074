#!/usr/bin/env node
// The command's front door: looks whether this Node can run us, then hands over to the compiled program.
// It must stay readable by old Nodes: no syntax younger than ES2015 before the check has passed.
const major = Number(process.versions.node.split(".")[0]);
if (major < 20) {
  process.stderr.write(
    `tokenfwd: needs Node.js 20 or newer, and this is ${process.versions.node}\nhint: install a newer Node.js, or put one first on PATH\n`,
  );
  process.exitCode = 1;
} else {
  import("../dist/cli/main.js").then(
    (program) => program.main(),
    (error) => {
      const missing = error.code === "ERR_MODULE_NOT_FOUND";
      process.stderr.write(`tokenfwd: cannot start: ${missing ? "a part of the program is missing" : error.message}\n`);
      process.stderr.write(`hint: ${missing ? "in a checkout: npm install && npm run build; else " : ""}install tokenfwd again\n`);
      process.exitCode = 70;
    },
  );
}
