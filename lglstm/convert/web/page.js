// Drop a photo, see its parts: everything is computed here, nothing is sent anywhere.
import * as ort from "./ort.wasm.min.mjs";
import { toBlob, toLabels } from "./parse.js";

const MAX_PIXELS = 64_000_000;
const find = (id) => document.getElementById(id);

ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
// Threads need a page that the server isolates (COOP and COEP headers).
ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
ort.env.wasm.proxy = true; // the net runs in a worker, so that the page stays alive

let model;
let session;
let busy = false;

function say(text, error = false) {
  find("status").textContent = text;
  find("status").classList.toggle("error", error);
}

async function load() {
  model = await (await fetch("model.json")).json();
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  find("model").textContent =
    `${model.name}: ${model.names.length} labels, ${model.size[1]} × ${model.size[0]} pixels`;
  find("sample").disabled = false;
  document.documentElement.dataset.ready = "true";
}

async function pixelsOf(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name} cannot be read as a picture by this browser.`);
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    throw new Error(`${file.name} has more than ${MAX_PIXELS / 1e6} million pixels.`);
  }
  const canvas = find("photo");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function parse(file) {
  if (busy) return;
  if (!session) {
    say("The model is still loading; try again in a moment.");
    return;
  }
  busy = true;
  try {
    say("Parsing …");
    const { data, width, height } = await pixelsOf(file);
    const started = performance.now();
    const blob = toBlob(data, width, height, model.size, model.mean_bgr);
    const input = new ort.Tensor("float32", blob, [1, 3, ...model.size]);
    const outputs = await session.run({ [model.input]: input });
    const scores = outputs[model.output];
    const [, classes, ...size] = scores.dims;
    const labels = toLabels(scores.data, classes, size, width, height);
    const seconds = (performance.now() - started) / 1000;
    draw(labels, width, height);
    self.lastResult = { scores: scores.data, dims: scores.dims, labels, width, height };
    say(`${file.name}: ${width} × ${height} pixels, parsed in ${seconds.toFixed(1)} s.`);
  } catch (error) {
    clear();
    say(error.message, true);
  } finally {
    busy = false;
  }
}

// As before the first photo: nothing on the page is of another photo than the status speaks of.
function clear() {
  self.lastResult = undefined;
  find("result").hidden = true;
  find("sample").hidden = false;
  find("save").removeAttribute("href");
  find("legend").replaceChildren();
  for (const id of ["photo", "parts"]) find(id).width = find(id).height = 0;
}

async function parseSample() {
  const picture = await (await fetch("sample.jpg")).blob();
  await parse(new File([picture], "the drawing"));
}

function draw(labels, width, height) {
  const canvas = find("parts");
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  const counts = new Array(model.names.length).fill(0);
  labels.forEach((label, i) => {
    image.data.set([...model.colors[label], label ? 255 : 0], 4 * i); // background: clear
    counts[label]++;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  find("save").href = canvas.toDataURL("image/png");
  find("legend").replaceChildren(...legend(counts));
  find("result").hidden = false;
  find("sample").hidden = true;
}

function legend(counts) {
  const total = counts.reduce((a, b) => a + b, 0);
  return counts
    .map((count, label) => ({ count, label }))
    .filter(({ count }) => count)
    .sort((a, b) => b.count - a.count)
    .map(({ count, label }) => {
      const row = document.createElement("tr");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      if (label) swatch.style.background = `rgb(${model.colors[label].join(" ")})`;
      const name = document.createElement("td");
      name.append(swatch, model.names[label]);
      const share = document.createElement("td");
      share.textContent = `${(100 * count / total).toFixed(1)} %`;
      row.append(name, share);
      return row;
    });
}

const drop = find("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  // On the whole page: a photo that misses the field must not replace the page.
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) parse(event.dataTransfer.files[0]);
  });
}
find("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) parse(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
find("sample").addEventListener("click", () => {
  parseSample().catch((error) => say(`The drawing could not be loaded: ${error.message}`, true));
});
find("opacity").addEventListener("input", ({ target }) => {
  find("parts").style.opacity = target.value / 100;
});

load().catch((error) => say(`The model could not be loaded: ${error.message}`, true));
