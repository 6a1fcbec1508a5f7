// What a person does with a page of the marketplace: presses, follows, types, reads, signs in and out, changes the
// language. Names are what stands on the page. It leaves the way through the pages to the walk.

export function useHands({ page, shoot, base, people }) {
  const main = page.locator("#content, .hero"); // the front page greets above its content
  const press = (name) => main.getByRole("button", { name, exact: true }).first().click();
  const follow = (name) => main.getByRole("link", { name }).first().click();
  const menu = (name) => page.getByRole("navigation", { name: /主菜单|Main menu/ }).getByRole("link", { name }).click();
  const type = (label, text) => main.getByLabel(label).first().fill(text);
  const read = (text) => main.getByText(text).first().waitFor();
  const heading = (name) => main.getByRole("heading", { name }).first().waitFor();

  async function signIn(who) {
    await page.goto(`${base}/sign-in`);
    await type("邮箱", people[who].email);
    await type("密码", people[who].password);
    await press("登录");
    await page.getByRole("button", { name: "退出" }).waitFor();
  }

  async function signOut() {
    await page.getByRole("button", { name: "退出" }).click();
    await page.getByRole("link", { name: "登录", exact: true }).waitFor();
  }

  // Turns the page to English, takes its picture, turns it back.
  async function inEnglish(name, title) {
    await page.getByRole("link", { name: "English" }).click();
    await heading(title);
    await shoot(`${name}-en`);
    await page.getByRole("link", { name: "中文" }).click();
    await page.getByRole("link", { name: "English" }).waitFor();
  }

  return { main, press, follow, menu, type, read, heading, signIn, signOut, inEnglish };
}
