// Builds the component: esbuild makes one module of the sources, and ComponentizeJS puts it into a component.
import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";
import { build } from "esbuild";

const { outputFiles } = await build({
  entryPoints: ["src/handler.ts"],
  bundle: true,
  write: false,
  format: "esm",
  platform: "neutral",
  mainFields: ["module", "main"],
  target: "es2022",
  // The host gives these modules to the component.
  external: ["switchboard:*"],
});
const { component } = await componentize(outputFiles[0].text, {
  witPath: "wit",
  worldName: "handler",
  // A handler cannot use these features. It can use clocks and randomness, which the host supplies and
  // records.
  disableFeatures: ["stdio", "http", "fetch-event"],
});
await writeFile("target/component.wasm", component);
