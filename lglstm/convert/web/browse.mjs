// Opens the page in a real Chromium and uses it as a person would; used by the tests.
//   node browse.mjs CHROMIUM URL PHOTO NO_PHOTO SCREENSHOTS
// Clicks the sample, gives it a file that is no photo, then a photo. Prints one JSON object: what
// was to be seen at each step, and the scores and labels of the photo, in base64. SCREENSHOTS is a
// folder.
import puppeteer from "puppeteer-core";

const [executablePath, url, photo, noPhoto, screenshots] = process.argv.slice(2);
const browser = await puppeteer.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1000, height: 760 });
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  const foreign = [];
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(url)) {
      foreign.push(request.url());
    }
  });
  await page.goto(url);
  await page.waitForSelector("html[data-ready]", { timeout: 120_000 });
  const seen = {};
  const see = async (step) => {
    seen[step] = await page.evaluate(() => ({
      status: document.getElementById("status").textContent,
      legend: document.getElementById("legend").innerText,
      colors: [...document.querySelectorAll(".swatch")].map((x) => x.style.backgroundColor),
      overlay: document.getElementById("parts").getBoundingClientRect().width > 0,
      sample: document.getElementById("sample").getBoundingClientRect().width > 0,
    }));
    await page.screenshot({ path: `${screenshots}/${step}.png` });
  };
  const done = (name) => page.waitForFunction(
    (name) => {
      const { textContent, className } = document.getElementById("status");
      return textContent.startsWith(name) && (/parsed in/.test(textContent) || className);
    },
    { timeout: 300_000 },
    name,
  );
  const give = async (file) => {
    await (await page.$("#file")).uploadFile(file);
    await done(file.split("/").at(-1));
  };
  await see("empty");
  await page.click("#sample");
  await done("the drawing");
  await see("sample");
  await give(noPhoto);
  await see("error");
  await give(photo);
  await see("photo");
  const result = await page.evaluate(() => {
    const base64 = (array) => {
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      let text = "";
      for (let i = 0; i < bytes.length; i += 8192) {
        text += String.fromCharCode(...bytes.subarray(i, i + 8192));
      }
      return btoa(text);
    };
    const { scores, dims, labels, width, height } = self.lastResult ?? {};
    return { scores: base64(scores), labels: base64(labels), dims, width, height };
  });
  console.log(JSON.stringify({ ...result, seen, problems, foreign }));
} finally {
  await browser.close();
}
