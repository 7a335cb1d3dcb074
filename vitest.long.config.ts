/*
 * What `npm run test:long` runs: volume, soak and memory tests that are too slow for every commit. One worker, because
 * they measure.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/long/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    testTimeout: 900_000,
    hookTimeout: 120_000,
    reporters: ["default", "./test/support/choria/reporter.ts", "./test/support/summary-reporter.ts"],
  },
});
