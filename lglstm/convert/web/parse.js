// From photo to net and back, the same as common/preprocessing.py does it.

// The net's input, (3, height, width): BGR minus the mean, of RGBA pixels of any size.
export function toBlob(rgba, width, height, size, meanBgr) {
  const [rows, columns] = size;
  const shrinks = rows <= height && columns <= width;
  const taps = shrinks ? areaTaps : linearTaps;
  const across = taps(width, columns);
  const down = taps(height, rows);
  const blob = new Float32Array(3 * rows * columns);
  const narrow = new Float32Array(height * columns);
  for (let channel = 0; channel < 3; channel++) {
    const source = 2 - channel;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < columns; x++) {
        const { first, weights } = across[x];
        let sum = 0;
        for (let i = 0; i < weights.length; i++) {
          sum += weights[i] * rgba[4 * (y * width + first + i) + source];
        }
        narrow[y * columns + x] = sum;
      }
    }
    for (let y = 0; y < rows; y++) {
      const { first, weights } = down[y];
      for (let x = 0; x < columns; x++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) {
          sum += weights[i] * narrow[(first + i) * columns + x];
        }
        blob[(channel * rows + y) * columns + x] = sum - meanBgr[channel];
      }
    }
  }
  return blob;
}

// The best class of each pixel at the photo's size: scores (classes, rows, columns) are stretched
// bilinearly, then compared; a tie goes to the lower id.
export function toLabels(scores, classes, size, width, height) {
  const [rows, columns] = size;
  const across = linearTaps(columns, width);
  const down = linearTaps(rows, height);
  const labels = new Uint8Array(width * height);
  const best = new Float32Array(width);
  const line = new Float32Array(columns);
  for (let y = 0; y < height; y++) {
    best.fill(-Infinity);
    const vertical = down[y];
    for (let k = 0; k < classes; k++) {
      const start = (k * rows + vertical.first) * columns;
      for (let x = 0; x < columns; x++) {
        let sum = 0;
        for (let i = 0; i < vertical.weights.length; i++) {
          sum += vertical.weights[i] * scores[start + i * columns + x];
        }
        line[x] = sum;
      }
      for (let x = 0; x < width; x++) {
        const { first, weights } = across[x];
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * line[first + i];
        if (sum > best[x]) {
          best[x] = sum;
          labels[y * width + x] = k;
        }
      }
    }
  }
  return labels;
}

// Which source pixels make each target pixel, and their weights: means over the area it covers.
export function areaTaps(source, target) {
  const scale = source / target;
  return Array.from({ length: target }, (_, index) => {
    const begin = index * scale;
    const end = Math.min(begin + scale, source);
    const first = Math.floor(begin + 1e-9);
    const last = Math.min(source, Math.ceil(end - 1e-9));
    const weights = [];
    for (let i = first; i < last; i++) {
      weights.push((Math.min(i + 1, end) - Math.max(i, begin)) / (end - begin));
    }
    return { first, weights };
  });
}

// The same for bilinear interpolation; a pixel's value is at its center.
export function linearTaps(source, target) {
  return Array.from({ length: target }, (_, index) => {
    const at = Math.min(Math.max((index + 0.5) * source / target - 0.5, 0), source - 1);
    const first = Math.floor(at);
    const part = at - first;
    return { first, weights: part > 0 ? [1 - part, part] : [1] };
  });
}
