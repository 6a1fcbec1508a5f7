// Walks the journey once in Chromium as people do, by clicking and typing, and prints what was wrong as JSON.
// Input, as the only argument: {base, browser, credentials: file, pictures: folder, base_model, adapter: a served one of
// that base, question, data: CSV file, model: name of the new one, recipe}.
import { readFileSync } from "node:fs";
import { useHands } from "./hands.mjs";
import { openBrowser, until } from "./watched.mjs";

const input = JSON.parse(process.argv[2]);
const people = JSON.parse(readFileSync(input.credentials, "utf8"));
const mark = Date.now().toString(36);
const { page, wrong, shoot, shootPhone, close } = await openBrowser({
  base: input.base,
  executable: input.browser,
  pictures: input.pictures,
});
const { main, press, follow, menu, type, read, heading, signIn, signOut, inEnglish } = useHands({
  page,
  shoot,
  base: input.base,
  people,
});
const TRAINING_MS = 180_000;
const seen = {};

async function choose() {
  await page.goto(input.base);
  await heading("选一个备案模型，用自家数据微调，当天就能调用");
  await shoot("front");
  await shootPhone("front-390");
  await inEnglish("front", "Choose a filed model, adapt it to your plant, call it the same day");
  await page.getByRole("searchbox").fill("demo");
  await press("搜索");
  await main.getByRole("group", { name: "备案" }).getByText("已备案", { exact: false }).first().click();
  await until("the filter in the address", () => page.url().includes("filing="));
  await until("only filed models", async () => !(await page.locator("#results").getByText("未备案", { exact: true }).count()));
  await shoot("models-filed");
  await follow("清除筛选");
  await read("demo-trial-1m");
  await shoot("models");
  await shootPhone("models-390");
  await inEnglish("models", "Choose a model");
}

async function readModel() {
  await signIn("factory");
  await menu("选模型");
  await main.locator(`a[href="/models/${input.base_model}"]`).first().click();
  await heading("本企业价格");
  seen.filing = await main.locator(".filed-number").innerText();
  await shoot("model-base");
  await inEnglish("model-base", "Price for your firm");
  await main.locator(`.lineage ~ ul a, h3 + ul a`).filter({ hasText: input.adapter }).first().click();
  await type("您的消息", input.question);
  await press("发送");
  const labels = main.getByText("本内容由人工智能生成");
  await until("both answers with the label", async () => (await labels.filter({ visible: true }).count()) === 2);
  seen.answers = await main.locator("[data-answer]").allInnerTexts();
  await shoot("model");
  await shootPhone("model-390");
}

async function uploadData() {
  await menu("数据集");
  await main.getByLabel("文件").setInputFiles(input.data);
  await type("名称", "二车间故障报告");
  await press("上传并检查");
  await heading("检查报告");
  await shoot("dataset");
  const agree = main.getByRole("button", { name: "我已了解，继续使用" });
  if (await agree.count()) await agree.click();
  await follow("用它微调");
}

async function orderRun() {
  await heading("新建微调");
  await main.locator(`label:has(input[value="${input.base_model}"])`).click();
  await shoot("run-new-base");
  await press("下一步：数据");
  await type("模型名", input.model);
  await main.getByText("调整配方（可选）").click();
  for (const [name, value] of Object.entries(input.recipe)) await main.locator(`#f-recipe-${name}`).fill(String(value));
  await shoot("run-new-recipe");
  await press("计算用量和配方");
  await main.getByRole("heading", { name: "选择算力" }).waitFor({ timeout: TRAINING_MS });
  await shoot("run-new-offers");
  await main.locator(".pick-card").filter({ hasText: "可算力券" }).first().or(main.locator(".pick-card").first()).first().click();
  await press("获取报价");
  await heading("报价");
  const bill = main.getByRole("region", { name: "报价明细" });
  for (const column of ["目录价", "券", "自付"]) await bill.getByRole("columnheader", { name: column }).waitFor();
  seen.bill = await bill.locator("tfoot td").allInnerTexts();
  await shoot("run-new");
  await shootPhone("run-new-390");
  await inEnglish("run-new", "Quote");
  await press("接受报价并开始");
}

async function watchRun() {
  const drawing = () => main.locator("canvas").first().evaluate((canvas) => canvas.toDataURL());
  await heading("损失曲线");
  await until("the first step", async () => /第 \d+/.test(await main.locator("#run-live").innerText()), TRAINING_MS);
  const first = await drawing();
  await until("the curve moves", async () => (await drawing()) !== first, TRAINING_MS);
  await shoot("run-live");
  await main.getByRole("heading", { name: "评测：基座与新模型" }).waitFor({ timeout: TRAINING_MS });
  seen.scores = await main.locator(".score").innerText();
  await page.waitForLoadState("networkidle").catch(() => undefined);
  await shoot("run");
  await shootPhone("run-390");
  // The same data and recipe as in a walk before give the same version, which is served already.
  const served = main.getByRole("link", { name: "查看接入点" });
  await main.getByRole("button", { name: "部署并调用" }).or(served).first().click();
}

async function useModel() {
  await heading("接入点");
  const row = main.getByRole("row").filter({ hasText: input.model });
  await until("the version is ready", async () => {
    if ((await row.first().innerText()).includes("运行中")) return true;
    await page.reload();
    return false;
  }, 120_000);
  await follow("创建密钥");
  await type("名称", "二车间工单系统");
  await press("创建");
  await heading("密钥已创建");
  seen.key = /gm_[0-9a-f]+_[\w-]{20,}/.test(await main.innerText());
  await shoot("key");
  await follow("我已保存");
  await heading("密钥");
  seen.key_again = /gm_[0-9a-f]+_[\w-]{20,}/.test(await main.innerText());
  await shoot("endpoints");
  await inEnglish("endpoints", "Use models");
}

async function readMoney() {
  await menu("账单");
  await heading("明细");
  seen.lines = await main.getByRole("region", { name: "账单明细" }).locator("tbody tr").count();
  seen.ledger = await main.locator(".sum-zero strong").innerText();
  await shoot("statement");
  await shootPhone("statement-390");
  await inEnglish("statement", "Lines");
  await menu("模型券");
  await heading("我的券");
  await shoot("vouchers");
  await shootPhone("vouchers-390");
  await follow("申请券");
  await main.getByLabel("项目").selectOption("compute");
  await type("申请金额（元）", "120.00");
  await type("合同编号", `WALK-${mark}`);
  const paper = { name: "contract.txt", mimeType: "text/plain", buffer: Buffer.from(`contract WALK-${mark}\n`) };
  await main.locator("#f-paper_contract").setInputFiles(paper);
  await shoot("voucher-apply");
  await press("提交申请");
  await read(`WALK-${mark}`);
  await menu("算力");
  await heading("算力");
  await shoot("offers");
  await signOut();
}

async function operate() {
  await signIn("operator");
  await menu("运营");
  await heading("待审核券申请");
  await shoot("operator");
  await inEnglish("operator", "Operations");
  const newest = main.getByRole("row").filter({ hasText: "演示东方精密制造厂" }).filter({ hasText: "已提交" }).last();
  await newest.getByRole("link", { name: "审核" }).click();
  await read(`WALK-${mark}`);
  await main.locator(".choice-card").filter({ hasText: "初审通过" }).click();
  await main.locator("#f-reason").fill("材料齐全");
  await shoot("voucher-review");
  await press("记录决定");
  await read("您已处理过此申请");
  await menu("备案");
  await heading("备案公示");
  await shoot("filings");
  await inEnglish("filings", "Filings");
  await page.goto(`${input.base}/operator/pool`);
  await heading("推理资源池");
  await shoot("pool");
  await signOut();
}

async function lookOn() {
  await signIn("integrator");
  await menu("我的上架");
  await heading("收入");
  await shoot("uploads");
  await follow("上传适配器");
  await shoot("upload-new");
  await signOut();
  await signIn("auditor");
  await menu("账单");
  await main.getByLabel("机构").selectOption({ label: "演示东方精密制造厂" });
  await press("查看");
  await heading("试算平衡");
  seen.audited = await main.locator(".statement-head strong").innerText();
  seen.audit_lines = await main.getByRole("region", { name: "账单明细" }).locator("tbody tr").count();
  await shoot("statement-auditor");
  await signOut();
}

const steps = [choose, readModel, uploadData, orderRun, watchRun, useModel, readMoney, operate, lookOn];
const took = {};
try {
  for (const step of steps) {
    const from = Date.now();
    await step();
    took[step.name] = Date.now() - from;
  }
} catch (error) {
  await shoot("broken");
  wrong.push(`${page.url()} stopped: ${error.message}`);
}
await close();
console.log(JSON.stringify({ wrong, seen, took }));
