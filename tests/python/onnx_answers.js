// Answers of ONNX models in ONNX Runtime, for onnx_import.py.
//
//   node onnx_answers.js < LIST
//
// A line of LIST: MODEL INPUTS SHAPE TYPE OUTPUTS BATCH, divided by tabs. INPUTS: plain little-endian float32 or int64
// (TYPE) of SHAPE; OUTPUTS: the file that gets the answers as float32; BATCH: how many inputs at a time. Prints a line of
// JSON for each: the shape of the answers of a batch, or the error. ONNX Runtime is the npm package onnxruntime-node.
// Exit codes: 0; 77 when ONNX Runtime is missing.
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
  process.exit(77);
}

async function answer(ort, [model, inputsFile, shapeText, type, outputsFile, batchText]) {
  const bytes = fs.readFileSync(inputsFile), batch = Number(batchText);
  const Type = type === 'int64' ? BigInt64Array : Float32Array;
  const inputs = new Type(bytes.buffer, bytes.byteOffset, bytes.byteLength / Type.BYTES_PER_ELEMENT);
  const shape = shapeText.split(',').map(Number), size = inputs.length / shape[0];
  const session = await ort.InferenceSession.create(model, {intraOpNumThreads: 1, interOpNumThreads: 1,
                                                            logSeverityLevel: 3, graphOptimizationLevel: 'disabled'});
  const name = session.inputNames[0], parts = [];
  let dims;
  for (let from = 0; from < shape[0]; from += batch) {
    const part = inputs.slice(from * size, (from + batch) * size);
    const answers = await session.run({[name]: new ort.Tensor(type, part, [batch, ...shape.slice(1)])});
    const output = answers[session.outputNames[0]];
    dims = output.dims;
    parts.push(Buffer.from(Float32Array.from(output.data, Number).buffer));
  }
  fs.writeFileSync(outputsFile, Buffer.concat(parts));
  return {shape: dims};
}

async function main() {
  const ort = load();
  for (const line of fs.readFileSync(0, 'utf8').split('\n').filter(text => text)) {
    let report;
    try {
      report = await answer(ort, line.split('\t'));
    } catch (error) {
      report = {error: error.message};
    }
    console.log(JSON.stringify(report));
  }
}

main();
