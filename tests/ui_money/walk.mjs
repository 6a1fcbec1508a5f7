// Opens every page of money of every role in Chromium, in both languages, on a desktop and a phone, and prints what is
// wrong as JSON. Input, the only argument: {base, browser, cookies: {who: token}, pages: [[path, who]], pictures?}.
import { createRequire } from "node:module";

const require = createRequire(new URL("../../marketplace_ui/assets/", import.meta.url));
const { chromium } = require("playwright-core");
const input = JSON.parse(process.argv[2]);
const QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"];
const SCREENS = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };
const wrong = [];

// Both run inside the page. What a reader of `language` finds odd: names and codes that people gave are marked
// translate="no" by the pages and left out.
function read(language) {
  const found = [];
  const silent = '[translate="no"], script, style, .visually-hidden, code, pre, textarea';
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    if (text && !walker.currentNode.parentElement.closest(silent)) texts.push(text);
  }
  for (const name of ["placeholder", "aria-label", "data-label", "title"]) {
    for (const element of document.body.querySelectorAll(`[${name}]`)) {
      if (!element.closest(silent) && element.tagName !== "TIME") texts.push(element.getAttribute(name));
    }
  }
  for (const text of texts.filter(Boolean)) {
    const words = text.match(/[A-Za-z]{2,}/g) ?? [];
    const chinese = /[\u4e00-\u9fff]/.test(text);
    if (/(^|\s)[a-z]+(_[a-z]+)+(\s|$)/.test(text)) found.push(`shows a raw code: ${text}`);
    if (/\b(None|undefined|null|NaN)\b|\{\{|\[object/.test(text)) found.push(`shows a bare value: ${text}`);
    if (language === "en" && chinese && text !== "中文") found.push(`says in Chinese: ${text}`);
    if (language === "zh" && !chinese && words.length > 1) found.push(`says in English: ${text}`);
  }
  for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    const named = field.labels?.length || field.getAttribute("aria-label");
    if (!named) found.push(`has a field without label: ${field.name}`);
  }
  return found;
}

// What does not fit the screen: the page itself, or a cell of a table that cannot be scrolled to on a phone.
function measure() {
  const found = [];
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) found.push(`is ${wide} px wider than the screen`);
  // Offers side by side are the one table that a phone scrolls.
  const kept = window.innerWidth < 576 ? ".table-scroll.as-cards" : ".table-scroll";
  for (const table of document.querySelectorAll(kept)) {
    const more = table.scrollWidth - table.clientWidth;
    if (more > 0) found.push(`has a table ${more} px wider than its card: ${table.getAttribute("aria-label")}`);
  }
  return found;
}

const browser = await chromium.launch({
  executablePath: input.browser,
  args: ["--no-sandbox", "--disable-gpu", "--disable-sync", ...QUIET],
});
let number = 0;
for (const language of ["zh", "en"]) {
  const context = await browser.newContext({ viewport: SCREENS.desktop });
  const page = await context.newPage();
  let place = "";
  const tell = (text) => wrong.push(`${place} ${text}`);
  page.on("console", (message) => message.type() === "error" && tell(`console: ${message.text()}`));
  page.on("pageerror", (error) => tell(`error: ${error.message}`));
  page.on("response", (answer) => answer.status() >= 400 && tell(`${answer.status()} from ${answer.url()}`));
  for (const [path, who] of input.pages) {
    place = `${language} ${who} ${path}`;
    await context.clearCookies();
    await context.addCookies([
      { name: "guanmo_language", value: language, url: input.base },
      { name: "guanmo_session", value: input.cookies[who], url: input.base },
    ]);
    await page.goto(input.base + path, { waitUntil: "load" });
    for (const text of await page.evaluate(read, language)) tell(text);
    const writes = await page.locator('form[method="post"]:not([action="/sign-out"])').count();
    if (who === "auditor" && writes) tell(`lets the auditor send ${writes} forms`);
    for (const [screen, viewport] of Object.entries(SCREENS)) {
      await page.setViewportSize(viewport);
      for (const text of await page.evaluate(measure)) tell(`on a ${screen} ${text}`);
      if (input.pictures) await picture(page, `${who}-${path}-${screen}-${language}`);
      number += 1;
    }
  }
  await context.close();
}
await browser.close();
console.log(JSON.stringify({ number, wrong }));

// For a look by hand; a browser on a busy machine may fail to take one, which is no fault of the page.
async function picture(page, title) {
  const name = `${title.replace(/[^a-z0-9]+/gi, "-").slice(0, 90)}.png`;
  const failed = (error) => console.error(name, error.message);
  await page.screenshot({ path: `${input.pictures}/${name}`, fullPage: true }).catch(failed);
}
