// Opens pages in Chromium, in both languages, on a desktop and a phone, and prints what is wrong with them as JSON.
// Input: {base, browser, cookies: {name: token}, pages: [[path, who]], pictures?: folder} as the only argument.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../marketplace_ui/assets/", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const input = JSON.parse(process.argv[2]);
const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
const quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"];
const screens = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };
const wrong = [];

const browser = await chromium.launch({
  executablePath: input.browser,
  args: ["--no-sandbox", "--disable-gpu", "--disable-sync", ...quiet],
});
for (const language of ["zh", "en"]) {
  for (const [screen, viewport] of Object.entries(screens)) {
    const context = await browser.newContext({ viewport });
    const page = await context.newPage();
    const where = () => `${language} ${screen} ${page.url().replace(input.base, "")}`;
    page.on("console", (message) => message.type() === "error" && wrong.push(`${where()} console: ${message.text()}`));
    page.on("pageerror", (error) => wrong.push(`${where()} error: ${error.message}`));
    page.on("request", (request) => {
      if (!request.url().startsWith(input.base) && !request.url().startsWith("data:")) {
        wrong.push(`${where()} calls ${request.url()}`);
      }
    });
    for (const [path, who] of input.pages) {
      await context.clearCookies();
      const cookies = [{ name: "guanmo_language", value: language, url: input.base }];
      if (who) cookies.push({ name: "guanmo_session", value: input.cookies[who], url: input.base });
      await context.addCookies(cookies);
      await page.goto(input.base + path, { waitUntil: "load" });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wide > 0) wrong.push(`${where()} is ${wide} px wider than the screen`);
      if (input.pictures) {
        const name = `${path.replace(/[^a-z0-9]+/gi, "_")}-${who}-${screen}-${language}.png`;
        await page.screenshot({ path: `${input.pictures}/${name}`, fullPage: true });
      }
      // Evaluated by the test's own channel, which the page's policy does not concern.
      await page.evaluate(axe);
      const found = await page.evaluate((only) => window.axe.run(document, { runOnly: only }), rules);
      for (const item of found.violations) {
        wrong.push(`${where()} axe ${item.id}: ${item.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(" | ")}`);
      }
    }
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(wrong));
