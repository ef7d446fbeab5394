// The conformance vectors in plain JavaScript (Node 20, nothing to install). README.md beside this file has the format.
//
//   node check.mjs v1                          compute L1 and the windows of L2 right here, and compare
//   node check.mjs v1 RESULTS [--dtype D]      compare a folder of results, one file a case, with all of v1
//
// Prints a line for each case that fails or is skipped and one for each level. Exit code: 0 all well, 1 a case failed,
// 2 the vectors or the command line are no good.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";

// ---- reading ----------------------------------------------------------------------------------------------------------

const READ = { F64: [8, "readDoubleLE"], F32: [4, "readFloatLE"], I64: [8, "readBigInt64LE"], I32: [4, "readInt32LE"],
  U8: [1, "readUInt8"], BOOL: [1, "readUInt8"] };

// {name: {shape, data}}, data a flat array of numbers. Throws for a file that is cut off or says what cannot be.
function readSafetensors(file) {
  const bytes = fs.readFileSync(file);
  if (bytes.length < 8) throw new Error("the file has fewer than 8 bytes");
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  if (start > bytes.length) throw new Error("the header is cut off");
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(JSON.parse(bytes.toString("utf8", 8, start)))) {
    if (name === "__metadata__") continue;
    if (!READ[dtype]) throw new Error(`${name} has the dtype ${dtype}`);
    const [size, read] = READ[dtype];
    const count = shape.reduce((a, b) => a * b, 1);
    if (to - from !== count * size || start + to > bytes.length) throw new Error(`${name} is cut off`);
    const data = Array.from({ length: count }, (_, i) => Number(bytes[read](start + from + i * size)));
    tensors[name] = { shape, data, whole: !dtype.startsWith("F") };
  }
  return tensors;
}

// A nested list of numbers as {shape, data}.
function flatten(list) {
  if (!Array.isArray(list)) {
    if (typeof list !== "number") throw new Error("something else than a number in a list");
    return { shape: [], data: [list], whole: Number.isInteger(list) };
  }
  const parts = list.map(flatten);
  if (parts.some((p) => String(p.shape) !== String(parts[0].shape))) throw new Error("rows of unequal length");
  return { shape: [list.length, ...(parts[0]?.shape ?? [])], data: parts.flatMap((p) => p.data), whole: parts.every((p) => p.whole) };
}

// What a folder of results says of a case: {outputs}, {refused}, {unsupported} or {failed}.
function readResult(folder, id) {
  const file = path.join(folder, id);
  try {
    if (fs.existsSync(`${file}.safetensors`)) return { outputs: readSafetensors(`${file}.safetensors`) };
    if (!fs.existsSync(`${file}.json`)) return { failed: "there is no result" };
    const found = JSON.parse(fs.readFileSync(`${file}.json`, "utf8"));
    if (!found.outputs) return "refused" in found || "unsupported" in found ? found : { failed: "the result says nothing" };
    return { outputs: Object.fromEntries(Object.entries(found.outputs).map(([name, list]) => [name, flatten(list)])) };
  } catch (error) {
    return { failed: `the result cannot be read: ${error.message}` };
  }
}

function readVectors(folder) {
  const index = JSON.parse(fs.readFileSync(path.join(folder, "index.json"), "utf8"));
  if (index.format !== "led-vectors/1") throw new Error(`format ${index.format}`);
  for (const [name, expected] of Object.entries(index.files)) {
    const found = crypto.createHash("sha256").update(fs.readFileSync(path.join(folder, name))).digest("hex");
    if (found !== expected) throw new Error(`${name} has sha256 ${found}, but the index says ${expected}`);
  }
  const inputs = {}, outputs = {};
  for (const level of Object.keys(index.levels)) {
    Object.assign(inputs, readSafetensors(path.join(folder, `${level}.inputs.safetensors`)));
    Object.assign(outputs, readSafetensors(path.join(folder, `${level}.outputs.safetensors`)));
  }
  return { index, inputs, outputs };
}

// ---- judging ----------------------------------------------------------------------------------------------------------

// "" if the outputs are answer number n of the case, else why not.
function difference(vectors, entry, n, found, dtype) {
  for (const [name, tolerance] of Object.entries(entry.outputs)) {
    const expected = vectors.outputs[`${entry.id}/${n}/${name}`];
    const got = found[name];
    if (!got) return `there is no output ${name}`;
    if (String(got.shape) !== String(expected.shape)) return `${name} has shape [${got.shape}], not [${expected.shape}]`;
    if (tolerance === null && !got.whole) return `${name} holds numbers that are not whole`;
    const allowed = tolerance === null ? 0 : tolerance[dtype];
    const at = expected.data.findIndex((x, i) => !(Math.abs(got.data[i] - x) <= allowed)); // so that a NaN is wrong, too
    if (at >= 0) return `${name}, number ${at}: ${got.data[at]}, not ${expected.data[at]} (allowed ${allowed})`;
  }
  return "";
}

// ["passed" | "failed" | "skipped", why]
function judge(vectors, entry, result, dtype) {
  if (entry.needs && !result.outputs) return ["skipped", `needs ${entry.needs}`];
  if (entry.types && !entry.types.includes(dtype)) return ["skipped", `stated for ${entry.types.join(" and ")} only`];
  if (result.failed) return ["failed", result.failed];
  if ("unsupported" in result) return ["skipped", result.unsupported];
  if ("refused" in result) return entry.result === "invalid" || entry.may_refuse ? ["passed", ""] : ["failed", `refused: ${result.refused}`];
  if (entry.result === "invalid") return ["failed", "not refused"];
  if (Object.values(entry.outputs).some((t) => t !== null && t[dtype] === undefined)) return ["skipped", `no tolerance for ${dtype}`];
  const reasons = Array.from({ length: entry.answers }, (_, i) => difference(vectors, entry, i + 1, result.outputs, dtype));
  return reasons.includes("") ? ["passed", ""] : ["failed", reasons[0]];
}

// ---- an implementation of L1 and of the window of L2, straight from the definition ------------------------------------

const tensor = (shape, data) => ({ shape, data, whole: false });
const rowsOf = ({ shape, data }) => {
  const width = shape[shape.length - 1];
  return Array.from({ length: data.length / width }, (_, r) => data.slice(r * width, (r + 1) * width));
};
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

// erf by its Taylor series near 0 and by the continued fraction of erfc beyond: JavaScript has none.
function erf(x) {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = x, sum = x;
    for (let n = 1; n < 80; n++) sum += (term *= (-x * x) / n) / (2 * n + 1);
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 80; n > 0; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

function softmax(scores) {
  const peak = Math.max(...scores);
  const powers = scores.map((s) => Math.exp(s - peak));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / total);
}

function layerNorm(row, weight, bias) {
  const mean = row.reduce((a, b) => a + b, 0) / row.length;
  const variance = row.reduce((a, x) => a + (x - mean) ** 2, 0) / row.length;
  return row.map((x, i) => ((x - mean) / Math.sqrt(variance + 1e-5)) * weight.data[i] + bias.data[i]);
}

const IMPLEMENTED = {
  linear({ x, weight, bias }) {
    const rows = rowsOf(weight);
    return { y: tensor([...x.shape.slice(0, -1), rows.length], rowsOf(x).flatMap((row) => rows.map((w, o) => dot(row, w) + bias.data[o]))) };
  },
  layer_norm: ({ x, weight, bias }) => ({ y: tensor(x.shape, rowsOf(x).flatMap((row) => layerNorm(row, weight, bias))) }),
  gelu: ({ x }) => ({ y: tensor(x.shape, x.data.map((v) => (v * (1 + erf(v / Math.SQRT2))) / 2)) }),
  relu: ({ x }) => ({ y: tensor(x.shape, x.data.map((v) => Math.max(v, 0))) }),
  silu: ({ x }) => ({ y: tensor(x.shape, x.data.map((v) => v / (1 + Math.exp(-v)))) }),
  gelu_new: ({ x }) => ({
    y: tensor(x.shape, x.data.map((v) => (v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))) / 2)),
  }),
  softmax({ scores, may_look }) {
    const seen = rowsOf(may_look);
    return { y: tensor(scores.shape, rowsOf(scores).flatMap((row, r) => {
      const open = row.flatMap((_, i) => (seen[r][i] ? [i] : []));
      const probabilities = softmax(open.map((i) => row[i]));
      return row.map((_, i) => (seen[r][i] ? probabilities[open.indexOf(i)] : 0));
    })) };
  },
  embed({ ids, table, positions, weight, bias }) {
    const tokens = rowsOf(table), places = rowsOf(positions);
    const rows = ids.data.map((id, t) => layerNorm(tokens[id].map((x, d) => x + places[t][d]), weight, bias));
    return { y: tensor([ids.data.length, weight.data.length], rows.flat()) };
  },
  shift({ labels }, { decoder_start_token_id: start, pad_token_id: pad }) {
    const rows = rowsOf(labels).map((row) => [start, ...row.slice(0, -1)].map((id) => (id === -100 ? pad : id)));
    return { decoder_input_ids: { shape: labels.shape, data: rows.flat(), whole: true } };
  },
  // What each local token takes from the local tokens in its window and from all global ones, each once.
  window({ q, k, v, attention_mask, global_attention_mask }, { radius }) {
    const [heads, length, width] = q.shape;
    const kind = attention_mask.data.map((m, t) => m * (global_attention_mask.data[t] + 1)); // 0 masked, 1 local, 2 global
    const at = (x, h, t) => x.data.slice((h * length + t) * width, (h * length + t + 1) * width);
    const out = new Array(length * heads * width).fill(0);
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < length; i++) {
        if (kind[i] !== 1) continue;
        const seen = kind.flatMap((m, j) => (m === 2 || (m === 1 && Math.abs(i - j) <= radius) ? [j] : []));
        const probabilities = softmax(seen.map((j) => dot(at(q, h, i), at(k, h, j)) / Math.sqrt(width)));
        for (let c = 0; c < width; c++) out[(i * heads + h) * width + c] = dot(probabilities, seen.map((j) => at(v, h, j)[c]));
      }
    }
    return { out: tensor([length, heads * width], out) };
  },
};

// ---- the command line ---------------------------------------------------------------------------------------------------

function main(words) {
  const option = words.indexOf("--dtype");
  const [dtype] = option < 0 ? ["float64"] : words.splice(option, 2).slice(1);
  const [folder, results, ...rest] = words;
  if (!folder || rest.length || !["float64", "float32", "float16", "bfloat16"].includes(dtype)) {
    console.error("usage: node check.mjs VECTORS [RESULTS] [--dtype float64|float32|float16|bfloat16]");
    return 2;
  }
  let vectors;
  try {
    vectors = readVectors(folder);
    if (results && !fs.statSync(results).isDirectory()) throw new Error(`${results} is no folder`);
  } catch (error) {
    console.error(`check.mjs: ${error.message}`);
    return 2;
  }
  const counts = {};
  for (const entry of vectors.index.cases) {
    let result;
    if (results) result = readResult(results, entry.id);
    else if (IMPLEMENTED[entry.operation]) {
      const inputs = Object.fromEntries(entry.inputs.map((name) => [name, vectors.inputs[`${entry.id}/${name}`]]));
      result = { outputs: IMPLEMENTED[entry.operation](inputs, entry.arguments) };
    } else continue;
    const [status, why] = judge(vectors, entry, result, dtype);
    const level = entry.id.split("-")[0];
    counts[level] ??= { passed: 0, failed: 0, skipped: 0 };
    counts[level][status] += 1;
    console.log(status === "passed" ? `${entry.id}: passed` : `${entry.id}: ${status}: ${why}   [${entry.flags.join(", ")}]`);
  }
  for (const [level, c] of Object.entries(counts)) console.log(`${level}: ${c.passed} passed, ${c.failed} failed, ${c.skipped} skipped`);
  return Object.values(counts).some((c) => c.failed) ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));
