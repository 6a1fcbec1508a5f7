// A browser whose pages are watched while a person's hands walk through them: errors, refused policies, foreign
// addresses, answers of 500. It leaves where to go and what to press to the walk.
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(new URL("../../marketplace_ui/assets/", import.meta.url));
const { chromium } = require("playwright-core");
const QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"];
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };
const PATIENCE_MS = 20_000;

// Returns {page, wrong, look, shoot, close}; `wrong` fills with lines while pages are walked.
export async function openBrowser({ base, executable, pictures }) {
  mkdirSync(pictures, { recursive: true });
  const browser = await chromium.launch({
    executablePath: executable,
    args: ["--no-sandbox", "--disable-gpu", "--disable-sync", ...QUIET],
  });
  const context = await browser.newContext({ viewport: DESKTOP, locale: "zh-CN", timezoneId: "Asia/Shanghai" });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const wrong = [];
  await watch(page, base, wrong);
  const shoot = async (name) => {
    await page.evaluate(() => window.scrollTo(0, 0));
    await page.screenshot({ path: join(pictures, `${name}.png`), animations: "disabled" });
  };
  return {
    page,
    wrong,
    shoot,
    // The same page as a phone shows it, which must not be wider than the screen.
    async shootPhone(name) {
      await page.setViewportSize(PHONE);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wider > 0) wrong.push(`${page.url().replace(base, "")} is ${wider} px wider than a phone`);
      await shoot(name);
      await page.setViewportSize(DESKTOP);
    },
    close: () => browser.close(),
  };
}

async function watch(page, base, wrong) {
  const tell = (text) => wrong.push(`${page.url().replace(base, "")} ${text}`);
  page.on("console", (message) => message.type() === "error" && tell(`console: ${message.text()}`));
  page.on("pageerror", (error) => tell(`error: ${error.message}`));
  page.on("request", (request) => {
    const own = request.url().startsWith(base) || request.url().startsWith("data:");
    if (!own) tell(`calls ${request.url()}`);
  });
  page.on("response", (answer) => answer.status() >= 500 && tell(`${answer.status()} from ${answer.url()}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
}

// Asks every 200 ms until `question` gives something true. Not waitForFunction: the pages' policy forbids its eval.
export async function until(what, question, timeoutMs = PATIENCE_MS) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await question();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    await new Promise((wake) => setTimeout(wake, 200));
  }
}
