// Opens the page in a real Chromium and parses a photo, as a person would; used by the tests.
//   node browse.mjs CHROMIUM URL PHOTO SCREENSHOT
// Prints one JSON object: the scores and labels that the page computed, in base64.
import puppeteer from "puppeteer-core";

const [executablePath, url, photo, screenshot] = process.argv.slice(2);
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
  await (await page.$("#file")).uploadFile(photo);
  await page.waitForFunction(
    () => /parsed in/.test(document.getElementById("status").textContent) ||
      document.querySelector("#status.error"),
    { timeout: 300_000 },
  );
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
    return {
      status: document.getElementById("status").textContent,
      legend: document.getElementById("legend").innerText,
      overlay: document.getElementById("parts").getBoundingClientRect().width > 0,
      ...(scores && {
        scores: base64(scores), labels: base64(labels), dims, width, height,
      }),
    };
  });
  await page.screenshot({ path: screenshot });
  console.log(JSON.stringify({ ...result, problems, foreign }));
} finally {
  await browser.close();
}
