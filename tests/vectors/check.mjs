// The conformance vectors in plain JavaScript (Node 20, nothing to install). README.md beside this file has the format.
//
//   node check.mjs v1                          compute L1, the windows of L2, and their gradients right here, and compare
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

// ---- an implementation of L1, of the window of L2 and of their gradients (L8), straight from the definition -------------

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

// What a change of the probabilities says of the scores: p (dp - sum p dp).
function softmaxBackward(probabilities, dp) {
  const expected = dot(probabilities, dp);
  return probabilities.map((p, i) => p * (dp[i] - expected));
}

// The gradient of one row, and of weight and bias; the last two are added to those of the rows before.
function layerNormBackward(dy, row, weight, dweight, dbias) {
  const mean = row.reduce((a, b) => a + b, 0) / row.length;
  const scale = 1 / Math.sqrt(row.reduce((a, x) => a + (x - mean) ** 2, 0) / row.length + 1e-5);
  const normal = row.map((x) => (x - mean) * scale), dn = dy.map((d, i) => d * weight.data[i]);
  const level = dn.reduce((a, b) => a + b, 0) / row.length, along = dot(dn, normal) / row.length;
  dy.forEach((d, i) => ((dweight[i] += d * normal[i]), (dbias[i] += d)));
  return dn.map((d, i) => scale * (d - level - normal[i] * along));
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

  // ---- gradients ----

  linear_backward({ x, weight, bias, "y.grad": dy }) {
    const dys = rowsOf(dy), xs = rowsOf(x), columns = weight.data.length / bias.data.length;
    const dx = dys.flatMap((d) => xs[0].map((_, i) => d.reduce((sum, g, o) => sum + g * weight.data[o * columns + i], 0)));
    const dweight = weight.data.map((_, at) => dys.reduce((sum, d, r) => sum + d[Math.floor(at / columns)] * xs[r][at % columns], 0));
    const dbias = bias.data.map((_, o) => dys.reduce((sum, d) => sum + d[o], 0));
    return { "x.grad": tensor(x.shape, dx), "weight.grad": tensor(weight.shape, dweight), "bias.grad": tensor(bias.shape, dbias) };
  },
  layer_norm_backward({ x, weight, bias, "y.grad": dy }) {
    const dweight = weight.data.map(() => 0), dbias = bias.data.map(() => 0), dys = rowsOf(dy);
    const dx = rowsOf(x).flatMap((row, r) => layerNormBackward(dys[r], row, weight, dweight, dbias));
    return { "x.grad": tensor(x.shape, dx), "weight.grad": tensor(weight.shape, dweight), "bias.grad": tensor(bias.shape, dbias) };
  },
  gelu_backward: slopes((v) => (1 + erf(v / Math.SQRT2)) / 2 + (v * Math.exp((-v * v) / 2)) / Math.sqrt(2 * Math.PI)),
  relu_backward: slopes((v) => (v > 0 ? 1 : 0)),
  silu_backward: slopes((v) => {
    const share = 1 / (1 + Math.exp(-v));
    return share * (1 + v * (1 - share));
  }),
  gelu_new_backward: slopes((v) => {
    const root = Math.sqrt(2 / Math.PI), t = Math.tanh(root * (v + 0.044715 * v ** 3));
    return (1 + t) / 2 + (v * (1 - t * t) * root * (1 + 3 * 0.044715 * v * v)) / 2;
  }),
  softmax_backward({ scores, may_look, "y.grad": dy }) {
    const probabilities = rowsOf(IMPLEMENTED.softmax({ scores, may_look }).y), dys = rowsOf(dy);
    return { "scores.grad": tensor(scores.shape, probabilities.flatMap((row, r) => softmaxBackward(row, dys[r]))) };
  },
  embed_backward({ ids, table, positions, weight, bias, "y.grad": dy }, { pad_token_id: pad }) {
    const tokens = rowsOf(table), places = rowsOf(positions), dys = rowsOf(dy), width = weight.data.length;
    const grads = { "table.grad": table, "positions.grad": positions, "weight.grad": weight, "bias.grad": bias };
    for (const name of Object.keys(grads)) grads[name] = tensor(grads[name].shape, grads[name].data.map(() => 0));
    ids.data.forEach((id, t) => {
      const row = tokens[id].map((x, d) => x + places[t][d]);
      const dx = layerNormBackward(dys[t], row, weight, grads["weight.grad"].data, grads["bias.grad"].data);
      dx.forEach((g, d) => {
        grads["positions.grad"].data[t * width + d] += g;
        if (id !== pad) grads["table.grad"].data[id * width + d] += g; // a pad id that is looked up teaches nothing
      });
    });
    return grads;
  },
  // Each query hands its gradient on to the keys that it saw.
  window_backward({ q, k, v, attention_mask, global_attention_mask, "y.grad": dout }, { radius }) {
    const [heads, length, width] = q.shape;
    const kind = attention_mask.data.map((m, t) => m * (global_attention_mask.data[t] + 1));
    const at = (x, h, t) => x.data.slice((h * length + t) * width, (h * length + t + 1) * width);
    const [dq, dk, dv] = [q, k, v].map((x) => new Array(x.data.length).fill(0));
    const add = (total, h, t, factor, row) => row.forEach((x, c) => (total[(h * length + t) * width + c] += factor * x));
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < length; i++) {
        if (kind[i] !== 1) continue;
        const seen = kind.flatMap((m, j) => (m === 2 || (m === 1 && Math.abs(i - j) <= radius) ? [j] : []));
        const probabilities = softmax(seen.map((j) => dot(at(q, h, i), at(k, h, j)) / Math.sqrt(width)));
        const d = dout.data.slice((i * heads + h) * width, (i * heads + h + 1) * width);
        const dscores = softmaxBackward(probabilities, seen.map((j) => dot(d, at(v, h, j))));
        seen.forEach((j, n) => {
          add(dv, h, j, probabilities[n], d);
          add(dq, h, i, dscores[n] / Math.sqrt(width), at(k, h, j));
          add(dk, h, j, dscores[n] / Math.sqrt(width), at(q, h, i));
        });
      }
    }
    return { "q.grad": tensor(q.shape, dq), "k.grad": tensor(k.shape, dk), "v.grad": tensor(v.shape, dv) };
  },
  loss_backward({ logits, labels }, { label_smoothing: e }) {
    const counted = labels.data.filter((label) => label !== -100).length, width = logits.shape[logits.shape.length - 1];
    let loss = 0;
    const dlogits = rowsOf(logits).flatMap((row, r) => {
      const label = labels.data[r];
      if (label === -100) return row.map(() => 0);
      const peak = Math.max(...row), probabilities = softmax(row);
      const logTotal = peak + Math.log(row.reduce((sum, s) => sum + Math.exp(s - peak), 0));
      loss += (logTotal - (1 - e) * row[label] - (e * row.reduce((a, b) => a + b, 0)) / width) / counted;
      return probabilities.map((p, i) => (p - (i === label ? 1 - e : 0) - e / width) / counted);
    });
    return { loss: tensor([], [loss]), "logits.grad": tensor(logits.shape, dlogits) };
  },
  adamw(inputs, { learning_rate: rate, weight_decay, adam_beta1: b1, adam_beta2: b2, adam_epsilon: eps, step }) {
    const found = {};
    for (const name of Object.keys(inputs).filter((key) => inputs[`${key}.grad`])) {
      const [w, g, m, v] = ["", ".grad", ".exp_avg", ".exp_avg_sq"].map((part) => inputs[name + part].data);
      const decay = name.endsWith(".bias") || name.includes("norm") ? 0 : weight_decay;
      const mean = m.map((x, i) => b1 * x + (1 - b1) * g[i]), square = v.map((x, i) => b2 * x + (1 - b2) * g[i] * g[i]);
      const step_of = (i) => mean[i] / (1 - b1 ** step) / (Math.sqrt(square[i] / (1 - b2 ** step)) + eps);
      const after = { "": w.map((x, i) => x - rate * decay * x - rate * step_of(i)), ".exp_avg": mean, ".exp_avg_sq": square };
      for (const [part, data] of Object.entries(after)) found[name + part] = tensor(inputs[name].shape, data);
    }
    return found;
  },
};

// dx = dy times the slope of a function of one number.
function slopes(slope) {
  return ({ x, "y.grad": dy }) => ({ "x.grad": tensor(x.shape, x.data.map((v, i) => dy.data[i] * slope(v))) });
}

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
    const flags = entry.flags.length ? `   [${entry.flags.join(", ")}]` : "";
    console.log(status === "passed" ? `${entry.id}: passed` : `${entry.id}: ${status}: ${why}${flags}`);
  }
  for (const [level, c] of Object.entries(counts)) console.log(`${level}: ${c.passed} passed, ${c.failed} failed, ${c.skipped} skipped`);
  return Object.values(counts).some((c) => c.failed) ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));
