// Bundles the pages' scripts and styles into ../static/dist with hashed names and a manifest that the templates read.
import { build } from "esbuild";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";

const outdir = "../static/dist";
await rm(outdir, { recursive: true, force: true });
await mkdir(outdir, { recursive: true });
const result = await build({
  entryPoints: ["src/app.js", "src/app.css"],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  entryNames: "[name]-[hash]",
  outdir,
  loader: { ".svg": "dataurl", ".woff2": "file" },
  metafile: true,
  logLevel: "warning",
});
const manifest = {};
for (const [path, output] of Object.entries(result.metafile.outputs)) {
  if (output.entryPoint) manifest[basename(output.entryPoint)] = basename(path);
}
await writeFile(`${outdir}/manifest.json`, JSON.stringify(manifest));
