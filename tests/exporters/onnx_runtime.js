// Runs an exported network in ONNX Runtime and compares its answers with those of quantized.pt.
//
//   node onnx_runtime.js MODEL INPUTS EXPECTED INPUT_SHAPE CLASSES [TYPE] [BATCH]
//
// INPUTS: float32 (or int64 with TYPE = int64) [N, INPUT_SHAPE]; EXPECTED: float32 [N, CLASSES], the answers of
// quantized.pt; both as plain little-endian numbers. INPUT_SHAPE: as in 3,32,32. Prints one line of JSON: images, equal
// (how many have the same class), largest (difference of two answers, relative to the largest answer), worst (the class
// of that answer), seconds.
// ONNX Runtime is the npm package onnxruntime-node; ONNXRUNTIME_NODE names its folder where node does not find it.
// Exit codes: 0, 1 when the network does not run, 77 when ONNX Runtime is missing.
'use strict';
const fs = require('fs');

function load() {
  for (const place of [process.env.ONNXRUNTIME_NODE, 'onnxruntime-node']) {
    try {
      if (place) return require(place);
    } catch (error) {
      // The next place.
    }
  }
  console.log('skipped: ONNX Runtime is missing; npm install --ignore-scripts onnxruntime-node brings it');
  process.exit(77);
}

function numbers(file, Type) {
  const bytes = fs.readFileSync(file);
  return new Type(bytes.buffer, bytes.byteOffset, bytes.byteLength / Type.BYTES_PER_ELEMENT);
}

function best(values, begin, count) {
  let at = 0;
  for (let i = 1; i < count; ++i) if (values[begin + i] > values[begin + at]) at = i;
  return at;
}

async function main() {
  const ort = load();
  const [model, inputsFile, expectedFile, shapeText, classesText, type = 'float32', batchText = '100'] =
      process.argv.slice(2);
  const shape = shapeText.split(',').map(Number), classes = Number(classesText), batch = Number(batchText);
  const inputs = numbers(inputsFile, type === 'int64' ? BigInt64Array : Float32Array);
  const expected = numbers(expectedFile, Float32Array);
  const size = shape.reduce((a, b) => a * b, 1), images = inputs.length / size;
  const session = await ort.InferenceSession.create(model, {intraOpNumThreads: 1, interOpNumThreads: 1});
  const begun = process.hrtime.bigint();
  let equal = 0, largest = 0, scale = 0, worst = 0;
  for (let from = 0; from < images; from += batch) {
    const count = Math.min(batch, images - from);
    const part = inputs.slice(from * size, (from + count) * size);
    const answers = (await session.run({input: new ort.Tensor(type, part, [count, ...shape])})).output;
    if (answers.dims.join() !== [count, classes].join()) throw new Error('answers of shape ' + answers.dims);
    for (let i = 0; i < count; ++i) {
      const at = (from + i) * classes;
      if (best(answers.data, i * classes, classes) === best(expected, at, classes)) ++equal;
      for (let c = 0; c < classes; ++c) {
        if (!Number.isFinite(expected[at + c])) continue;
        scale = Math.max(scale, Math.abs(expected[at + c]));
        const difference = Math.abs(answers.data[i * classes + c] - expected[at + c]);
        if (difference <= largest) continue;  // NaN is a difference
        largest = difference;
        worst = c;
      }
    }
  }
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  const version = ort.env.versions.node;
  console.log(JSON.stringify({images, equal, largest: largest / scale, worst, seconds, version}));
}

main().catch(error => {
  console.error('FAILED: ' + error.message);
  process.exit(1);
});
