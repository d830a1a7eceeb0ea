#!/usr/bin/env python3
"""Writes the seeds of all fuzz targets: small files of every format, byte by byte as the formats are documented.

python3 tests/fuzz/make_seeds.py    with PyTorch also the TorchScript archive
"""
import base64
import gzip
import hashlib
import io
import json
import pathlib
import shutil
import struct
import zipfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = pathlib.Path(__file__).resolve().parent / 'seeds'


def write(target, name, content):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def texts():
    for name in ('synthetic-digits', 'compare-lenet-mnist'):
        write('recipe', name + '.yaml', (ROOT / 'recipes' / (name + '.yaml')).read_text())
    write('recipe', 'csv.yaml', 'bitplan: 1\nname: own\nmodel: {file: net.onnx}\n'
          'data: {name: csv, train: a.csv, test: b.csv, label: y, columns: [u, v]}\n'
          'allocate: {budget: {bytes: 4e3, average_bits: 3}, pins: {conv1: 8, "fc*": 4}}\nseed: 18446744073709551615\n')
    write('plan', 'golden.yaml', (ROOT / 'tests/io/golden/plan-v1.yaml').read_text())
    write('latency', 'all.csv', '# one core\nmicroseconds,layer,kind,weight_bits,activation_bits\n'
          '41.5, conv1 ,,8,8\r\n\n120,,conv2d,,float\n1e-3,fc*,,0,16\n')
    write('widths_csv', 'heading.csv', '# by hand\nlayer;kind;bits\n"conv;1";conv2d;8.0\nfc1;linear;2\n')
    write('widths_csv', 'plain.csv', 'conv1,8\nfc1\t,32\n"a ""b""",0\n')
    write('widths_yaml', 'map.yaml', '{conv1: 8, fc1: {bits: 2.0}}\n')
    write('widths_yaml', 'list.json', '{"layers": [{"module": "conv1", "bits": 8}, {"name": "fc", "bitwidth": 16}]}')
    write('csv', 'names.csv', 'u,v,class\n1.5,-2,"cat"\n+3e2,0.25,"a ""dog"""\n')
    write('csv', 'numbers.csv', '\ufeffu;label\r\n1;0\r\n2;1\r\n')
    percentiles = [round(0.01 * i, 2) for i in range(101)]
    write('sensitivity', 'two.json', json.dumps({
        'bitplan_sensitivity': 1, 'widths': [2, 4],
        'units': [{'name': 'conv1', 'weights': 200, 'scales': 20, 'macs': 115200, 'loss_rise': [0.1, 0.001],
                   'coherence': [1.0, 0.9], 'score_percentiles': percentiles, 'log_sigma_percentiles': percentiles,
                   'replicates': [[0.1, 0.002]]},
                  {'name': 'fc', 'weights': 5000, 'scales': 10, 'macs': 5000, 'loss_rise': [0.2, 0.0],
                   'coherence': [], 'score_percentiles': [], 'log_sigma_percentiles': [],
                   'replicates': [[0.3, 0.0]]}]}))
    write('draws', 'two.json', json.dumps([
        {'rise': [[0.1, 0.2], [0.3, 0.0]], 'score': [[], []], 'log_sigma': [[], []]},
        {'rise': [[0.1, 0.2], [0.3, 0.0]], 'score': [percentiles] * 2, 'log_sigma': [percentiles] * 2}]))


def npy(descr, shape, body, fortran=False, version=1):
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"
    length = len(header) + 10 + 2 * (version - 1)
    header += ' ' * (-(length + 1) % 64) + '\n'
    return b'\x93NUMPY' + bytes([version, 0]) + struct.pack('<H' if version == 1 else '<I', len(header)) + \
        header.encode() + body


def arrays():
    write('npy', 'labels.npy', npy('<i8', '(2,)', struct.pack('<2q', 0, 3)))
    write('npy', 'bytes.npy', npy('|u1', '(2, 2, 3)', bytes(range(12))))
    write('npy', 'floats.npy', npy('>f4', '(2, 1, 2)', struct.pack('>4f', 0, 1, -1, 0.5), fortran=True))
    write('npy', 'halves.npy', npy('<f2', '(2, 2)', struct.pack('<4e', 0, 1, 2, 3), version=2))
    write('npy', 'unsigned.npy', npy('<u2', '(2, 1)', struct.pack('<2H', 1, 65535)))
    images = struct.pack('>4B3I', 0, 0, 8, 3, 2, 2, 3) + bytes(range(12))
    labels = struct.pack('>4BI', 0, 0, 8, 1, 2) + bytes([0, 9])
    for name, pack in (('plain', bytes), ('gzip', lambda b: gzip.compress(b, mtime=0))):
        packed = pack(images)
        write('idx', name, struct.pack('<H', len(packed)) + packed + pack(labels))
    write('cifar10', 'one.bin', bytes([3]) + bytes(i % 251 for i in range(3072)))


def pictures():
    write('picture', 'text.pgm', 'P2 # gray\n3 2\n7\n0 1 2\n3 4 7\n')
    write('picture', 'bytes.ppm', b'P6\n2 1\n255\n' + bytes(range(6)))
    write('picture', 'words.pgm', b'P5 2 1 1023\n' + struct.pack('>2H', 1, 1023))

    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
    write('picture', 'rgb.png', b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>2I5B', 2, 2, 8, 2, 0, 0, 0)) +
          chunk(b'IDAT', zlib.compress(b'\0abcdef\0ghijkl')) + chunk(b'IEND', b''))
    write('picture', 'rgb.bmp', b'BM' + struct.pack('<I2HI', 62, 0, 0, 54) +
          struct.pack('<I2i2H6I', 40, 1, 2, 1, 24, 0, 8, 0, 0, 0, 0) + b'abc\0def\0')
    write('picture', 'gray.jpg', b'\xff\xd8' + b'\xff\xdb\0\x43\0' + b'\1' * 64 +
          b'\xff\xc0\0\x0b\x08\0\x08\0\x08\1\1\x11\0' + b'\xff\xc4\0\x14\0\1' + b'\0' * 15 + b'\0' +
          b'\xff\xc4\0\x14\x10\1' + b'\0' * 15 + b'\0' + b'\xff\xda\0\x08\1\1\0\0\x3f\0' + b'\x3f' + b'\xff\xd9')


def safetensors(tensors, body, metadata=None):
    header = json.dumps({**({'__metadata__': metadata} if metadata else {}), **tensors})
    header += ' ' * (-len(header) % 8)
    return struct.pack('<Q', len(header)) + header.encode() + body


def packed():
    write('safetensors', 'two.safetensors',
          safetensors({'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]},
                       'b': {'dtype': 'U8', 'shape': [1, 3], 'data_offsets': [8, 11]}}, bytes(11), {'format': 'pt'}))
    index = {'layers': [{'name': 'conv1', 'parameter': 'conv1.weight', 'shape': [2, 3], 'channel_dim': 0,
                         'blocks': [{'channels': 1, 'scales': 1}, {'channels': 1, 'scales': 0}]}],
             'others': [{'name': 'conv1.bias', 'type': 'float32', 'shape': [2]}],
             'tied': {'b': 'conv1.bias'}, 'made_from': 'ab', 'input': {'type': 'float32', 'shape': [1, 3]}}
    tensors = {'bitplan:scales': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]},
               'bitplan:float32': {'dtype': 'F32', 'shape': [2], 'data_offsets': [4, 12]},
               'conv1.weight': {'dtype': 'U8', 'shape': [2], 'data_offsets': [12, 14]},
               'bitplan:widths': {'dtype': 'U8', 'shape': [2], 'data_offsets': [14, 16]}}
    body = struct.pack('<3f', 0.5, 1, 2) + bytes([0x53, 1]) + bytes([16 + 4, 0])
    short = [base64.b64encode(zlib.compress(text.encode())) for text in (json.dumps(index), 'bitplan: 1\n')]
    write('packed', 'conv.safetensors', safetensors(tensors, body, {
        'format': 'bitplan', 'version': '1', 'index': short[0].decode(), 'plan': short[1].decode(),
        'sha256': hashlib.sha256(body + short[0] + short[1]).hexdigest()}))
    text, places = json.dumps(index).encode(), json.dumps(tensors)[1:-1].encode()
    write('packed_index', 'conv', struct.pack('<H', len(text)) + text + struct.pack('<H', len(places)) + places + body)

    class Body:
        bytes = b''

        def add(self, shape, content, **more):
            self.bytes += content
            return {'shape': shape, **more, 'bytes': len(content)}

    def network(name, layers, activations, rest):
        header = {'layers': layers, 'others': rest, **activations}
        text = json.dumps(header).encode()
        write('bayes_packed', name, b'BPVN' + struct.pack('<IQ', 1, len(text)) + text + body.bytes)

    def biases():
        return [{**body.add([2], struct.pack('<2f', 0.5, -1)), 'name': f'{name}.bias'} for name in ('fc1', 'fc2')]

    body = Body()
    layers = [{'name': name, 'mean': body.add([2, columns], struct.pack(f'<{2 * columns}f', *range(2 * columns))),
               'sigma': body.add([2, columns], struct.pack(f'<{2 * columns}f', *[0.1] * (2 * columns)))}
              for name, columns in (('fc1', 3), ('fc2', 2))]
    network('float.bpvn', layers, {}, biases())
    body = Body()
    layers = []
    for name, columns, deflated in (('fc1', 3, False), ('fc2', 2, True)):
        grid = {'bits': 4, 'offset': 0.5, 'steps': body.add([2], struct.pack('<2f', 0.5, -0.25))}
        codes = bytes([0x12] * columns)
        mean = body.add([2, columns], zlib.compress(codes) if deflated else codes, bits=4, deflated=deflated)
        sigma = body.add([2, columns], bytes([0x5] * ((2 * 2 * columns + 7) // 8)), bits=2, deflated=False)
        layers.append({'name': name, 'mean_grid': grid, 'mean': mean,
                       'sigma_grid': {'bits': 2, 'scale': 'log', 'low': -3.0, 'step': 0.5}, 'sigma': sigma,
                       'samples': {'bits': 8, 'offset': 0.0, 'steps': body.add([1], struct.pack('<f', 0.25))}})
    network('codes.bpvn', layers, {}, biases())


def varint(number):
    number &= (1 << 64) - 1
    out = b''
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def whole(field, number):
    return varint(field << 3) + varint(number)


def block(field, content):
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def tensor(name, dims, floats=None, whole_numbers=None):
    message = b''.join(whole(1, d) for d in dims) + whole(2, 1 if floats is not None else 7) + block(8, name)
    if floats is not None:
        return message + block(9, struct.pack(f'<{len(floats)}f', *floats))
    return message + block(7, b''.join(varint(n) for n in whole_numbers))


def node(kind, inputs, outputs, attributes=b''):
    return block(1, b''.join(block(1, i) for i in inputs) + b''.join(block(2, o) for o in outputs) + block(3, 'n_' + kind) +
                 block(4, kind) + attributes)


def attribute(name, kind, content):
    return block(5, block(1, name) + content + whole(20, kind))


def port(field, name, dims):
    sizes = b''.join(block(1, whole(1, d) if isinstance(d, int) else block(2, d)) for d in dims)
    return block(field, block(1, name) + block(2, block(1, whole(1, 1) + block(2, sizes))))


def onnx():
    def model(name, graph, targets=('onnx_file', 'onnx_model')):
        for target in targets:
            write(target, name, whole(1, 8) + block(7, graph + block(2, 'g')) + block(8, whole(2, 17)))
    ints = lambda name, values: attribute(name, 7, b''.join(whole(8, v) for v in values))
    weights = [0.1 * (i % 7 - 3) for i in range(18)]
    model('conv.onnx',
          node('Conv', ['x', 'w', 'b'], ['c'], ints('pads', [1, 1, 1, 1])) + node('Relu', ['c'], ['r']) +
          node('MaxPool', ['r'], ['p'], ints('kernel_shape', [2, 2]) + ints('strides', [2, 2])) +
          node('Flatten', ['p'], ['f']) + node('Gemm', ['f', 'v'], ['g'], attribute('transB', 2, whole(3, 1))) +
          node('Softmax', ['g'], ['y'], attribute('axis', 2, whole(3, -1))) +
          block(5, tensor('w', [2, 1, 3, 3], weights)) + block(5, tensor('b', [2], [0.5, -0.5])) +
          block(5, tensor('v', [3, 8], [0.1 * i for i in range(24)])) + port(11, 'x', ['n', 1, 4, 4]) +
          port(12, 'y', ['n', 3]))
    model('reshape.onnx',
          node('Reshape', ['x', 's'], ['a']) + node('MatMul', ['a', 'm'], ['d']) + node('Add', ['d', 'k'], ['e']) +
          node('Transpose', ['e'], ['t'], ints('perm', [0, 2, 1])) +
          node('ReduceMean', ['t'], ['z'], ints('axes', [2]) + attribute('keepdims', 2, whole(3, 0))) +
          block(5, tensor('s', [3], whole_numbers=[0, 2, -1])) + block(5, tensor('m', [3, 2], [1, 2, 3, 4, 5, 6])) +
          block(5, tensor('k', [2], [0, 1])) + port(11, 'x', ['n', 6]) + port(12, 'z', ['n', 2]))


def torchscript():
    try:
        import torch
    except ImportError:
        print('no PyTorch: archives of PyTorch stay as they are')
        return
    torch.manual_seed(1)
    tensors = []
    for tensor in (torch.zeros(2, 1, 28, 28, dtype=torch.half), torch.tensor([[1, 2], [3, 4]])):
        file = io.BytesIO()
        torch.save(tensor, file)
        tensors.append(file.getvalue())
    write('pickled_tensor', 'two', struct.pack('<H', len(tensors[0])) + tensors[0] + tensors[1])
    for name, network in (('linear.pt', torch.nn.Linear(3, 2)),
                          ('conv.pt', torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()))):
        (SEEDS / 'torchscript').mkdir(parents=True, exist_ok=True)
        torch.jit.script(network.eval()).save(str(SEEDS / 'torchscript' / name))
    norm = torch.nn.BatchNorm1d(2).half()
    for name, made in (('state', torch.nn.Linear(3, 2).state_dict()),
                       ('checkpoint', {'epoch': 70000, 'rate': 0.5, 'best': None, 'state_dict': norm.state_dict()}),
                       ('parameters', {'w': torch.nn.Parameter(torch.ones(2, 2).t()), 'empty': torch.ones(0, 3)})):
        file = io.BytesIO()
        torch.save(made, file)
        write('state_dict', name, zipfile.ZipFile(file).read('archive/data.pkl'))


for made in SEEDS.glob('*'):
    if made.name not in ('torchscript', 'pickled_tensor', 'state_dict'):
        shutil.rmtree(made)
for part in (texts, arrays, pictures, packed, onnx, torchscript):
    part()
