// Builds the component with ComponentizeJS: node build.mjs OUT. The variable MODULES names the directory of
// the package.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [out] = process.argv.slice(2);
const tool = `${process.env.MODULES}/@bytecodealliance/componentize-js/src/componentize.js`;
const { componentize } = await import(pathToFileURL(tool));

// WIT tools expect the contract as a dependency of the handler's world.
const wit = await mkdtemp(join(tmpdir(), "auto-reply-"));
await cp("world.wit", join(wit, "world.wit"));
await cp("../../../wit", join(wit, "deps", "switchboard-host"), { recursive: true });
const { component } = await componentize(await readFile("auto-reply.js", "utf8"), {
  witPath: wit,
  worldName: "auto-reply",
  // A handler cannot use these features. It can use clocks and randomness, which the host supplies and
  // records.
  disableFeatures: ["stdio", "http", "fetch-event"],
});
await rm(wit, { recursive: true });
await writeFile(out, component);
