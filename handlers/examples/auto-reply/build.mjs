// The component, by ComponentizeJS: node build.mjs OUT, with the package in the directory that MODULES names.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [out] = process.argv.slice(2);
const tool = `${process.env.MODULES}/@bytecodealliance/componentize-js/src/componentize.js`;
const { componentize } = await import(pathToFileURL(tool));

// The world of this handler beside the contract, as WIT tools want them.
const wit = await mkdtemp(join(tmpdir(), "auto-reply-"));
await cp("world.wit", join(wit, "world.wit"));
await cp("../../../wit", join(wit, "deps", "switchboard-host"), { recursive: true });
const { component } = await componentize(await readFile("auto-reply.js", "utf8"), {
  witPath: wit,
  worldName: "auto-reply",
  // Nothing of it exists for a handler. Clocks and randomness do: the host gives them, and records them.
  disableFeatures: ["stdio", "http", "fetch-event"],
});
await rm(wit, { recursive: true });
await writeFile(out, component);
