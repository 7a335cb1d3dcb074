/*
 * What `npm test` runs. Three workers, also on two processors, because most files start real daemons (sshd, SoftHSM, p11-kit) and
 * wait for them. Setup and build are done before vitest starts; no test installs or compiles the project itself.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/{unit,property,vectors,arch,interop}/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 3,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ["default", "./test/support/choria/reporter.ts", "./test/support/summary-reporter.ts"],
    allowOnly: process.env["CI"] !== "true",
  },
});
