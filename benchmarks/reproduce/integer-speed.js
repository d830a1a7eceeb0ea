// Speed and kernels of ONNX models, for integer-speed.
//
//   node integer-speed.js RUNS BATCH FLOAT INTEGER ...   the models, run by turns in one process
//   node integer-speed.js --kernels MODEL                which kernels ONNX Runtime runs
//
// RUNS: measured runs of each model. Prints a line of JSON: the median microseconds of a run of each model with that
// batch, in time of the processor, which does not grow when other programs want it too; or how many nodes of each operator ONNX Runtime's optimized graph has. One thread. ONNX Runtime is the npm
// package onnxruntime-node; ONNXRUNTIME_NODE names its folder where node does not find it.
'use strict';
const os = require('os'), path = require('path');
const {operators} = require('../../tests/exporters/onnx_kernels.js');

const kWarm = 5;     // runs of each model that are not counted
const kAtOnce = 5;   // runs of one model before it is the next one's turn

function load() {
  for (const place of [process.env.ONNXRUNTIME_NODE, 'onnxruntime-node',
                       path.join(__dirname, '../../build/onnxruntime/node_modules/onnxruntime-node')]) {
    try {
      if (place) return require(place);
    } catch (error) {
      // The next place.
    }
  }
  throw new Error('ONNX Runtime is missing; npm install --ignore-scripts onnxruntime-node brings it');
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

async function speed(ort, runs, batch, files) {
  const models = [];
  for (const file of files) {
    const session = await ort.InferenceSession.create(file, {intraOpNumThreads: 1, interOpNumThreads: 1,
                                                             logSeverityLevel: 3});
    const shape = session.inputMetadata[0].shape.map((size, at) => at === 0 ? batch : size);
    const values = Float32Array.from({length: shape.reduce((a, b) => a * b, 1)}, () => Math.random() * 3 - 1.5);
    models.push({session, feeds: {[session.inputNames[0]]: new ort.Tensor('float32', values, shape)}, times: []});
  }
  for (const model of models) for (let i = 0; i < kWarm; ++i) await model.session.run(model.feeds);
  for (let run = 0; run < runs; run += kAtOnce) {
    for (const model of models) {
      for (let i = 0; i < kAtOnce; ++i) {
        const begun = process.cpuUsage();
        await model.session.run(model.feeds);
        const spent = process.cpuUsage(begun);
        model.times.push(spent.user + spent.system);
      }
    }
  }
  return models.map(model => Math.round(median(model.times)));
}

async function main() {
  const ort = load(), words = process.argv.slice(2);
  const answer = words[0] === '--kernels' ? await operators(ort, words[1], os.tmpdir())
                                          : await speed(ort, Number(words[0]), Number(words[1]), words.slice(2));
  console.log(JSON.stringify({answer, version: ort.env.versions.node}));
}

main().catch(error => {
  console.error('FAILED: ' + error.message);
  process.exit(1);
});
