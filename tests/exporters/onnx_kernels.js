// Which operators the graph has that ONNX Runtime makes of a model and runs.
'use strict';
const fs = require('fs'), path = require('path');

// Fields of a protobuf message: visit(number, value), a Buffer or a number.
function eachField(buffer, visit) {
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1;
    for (;;) {
      const byte = buffer[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  };
  while (at < buffer.length) {
    const tag = varint(), kind = tag & 7;
    if (kind === 0) {
      visit(tag >>> 3, varint());
    } else if (kind === 2) {
      const size = varint();
      visit(tag >>> 3, buffer.subarray(at, at + size));
      at += size;
    } else {
      at += kind === 1 ? 8 : 4;
    }
  }
}

// {operator: nodes} of the optimized graph of MODEL, on one thread; `folder` holds it for a moment.
async function operators(ort, model, folder) {
  const scratch = fs.mkdtempSync(path.join(folder, 'onnx-kernels-')), file = path.join(scratch, 'optimized.onnx');
  try {
    await ort.InferenceSession.create(model, {intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3,
                                              optimizedModelFilePath: file});
    const counts = {};
    eachField(fs.readFileSync(file), (field, graph) => {
      if (field !== 7) return;
      eachField(graph, (part, node) => {
        if (part !== 1) return;
        eachField(node, (number, value) => {
          if (number === 4) counts[value.toString()] = (counts[value.toString()] || 0) + 1;
        });
      });
    });
    return counts;
  } finally {
    fs.rmSync(scratch, {recursive: true, force: true});
  }
}

module.exports = {operators};

// node onnx_kernels.js MODEL: the same as a line of JSON. Exit code 77 when ONNX Runtime is missing.
if (require.main === module) {
  let ort;
  try {
    ort = require(process.env.ONNXRUNTIME_NODE || 'onnxruntime-node');
  } catch (error) {
    console.log('skipped: ONNX Runtime is missing; npm install --ignore-scripts onnxruntime-node brings it');
    process.exit(77);
  }
  operators(ort, process.argv[2], require('os').tmpdir()).then(counts => console.log(JSON.stringify(counts)));
}
