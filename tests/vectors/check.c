/* The conformance vectors in C99, in one file, with the standard library alone. README.md beside this file has the format.

       cc -std=c99 -O2 -o check check.c -lm
       ./check v1                         compute L1, the windows of L2, and their gradients right here, and compare
       ./check v1 RESULTS [DTYPE]         compare a folder of results, one file a case, with all of v1 (DTYPE: float64)

   Prints a line for each case and one for each level. Exit code: 0 all well, 1 a case failed, 2 the vectors or the command
   line are no good. Whole numbers are compared as doubles: ids are far below 2^53. The sha256 of the files is not looked at.
   Memory is not given back: the program ends soon. */

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST_FILE 100000000L
#define DEEPEST 200

static void *get_memory(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "check: out of memory\n");
        exit(2);
    }
    return memory;
}

/* The bytes of a file with a 0 behind them, or NULL. */
static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    char *bytes = NULL;
    long length;
    if (!file) return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && length <= LARGEST_FILE) {
        rewind(file);
        bytes = get_memory((size_t)length + 1, 1);
        *size = fread(bytes, 1, (size_t)length, file);
    }
    fclose(file);
    return bytes;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------ */

typedef struct Json {
    char kind; /* one of n(ull) t(rue) f(alse) 0 (a number) " [ { */
    double number;
    char *key, *text;
    struct Json *first, *next;
} Json;

static const char *after_space(const char *at) { return at + strspn(at, " \t\r\n"); }

/* A string without its quotes. Characters beyond ASCII written \uXXXX become ?: no name that is looked up has one. */
static const char *parse_string(const char *at, char **text) {
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *end;
    char *out;
    if (*at++ != '"') return NULL;
    for (end = at; *end && *end != '"'; end++)
        if (*end == '\\' && end[1]) end++;
    out = *text = get_memory((size_t)(end - at) + 1, 1);
    for (; *at != '"'; at++) {
        if ((unsigned char)*at < ' ') return NULL;
        if (*at != '\\') {
            *out++ = *at;
        } else if (*++at == 'u') {
            if (strspn(at + 1, "0123456789abcdefABCDEF") < 4) return NULL;
            *out++ = '?';
            at += 4;
        } else {
            const char *found = *at ? strchr(escapes, *at) : NULL;
            if (!found) return NULL;
            *out++ = meant[found - escapes];
        }
    }
    return at + 1;
}

/* Parse one value into `value`; where it ends, or NULL if it is none. */
static const char *parse_value(const char *at, Json *value, int depth) {
    at = after_space(at);
    value->kind = *at;
    if (depth > DEEPEST) return NULL;
    if (*at == '"') return parse_string(at, &value->text);
    if (*at == '[' || *at == '{') {
        char end = *at == '[' ? ']' : '}';
        Json **place = &value->first;
        at = after_space(at + 1);
        if (*at == end) return at + 1;
        for (;;) {
            Json *entry = *place = get_memory(1, sizeof *entry);
            char *key = NULL;
            if (end == '}') {
                if (!(at = parse_string(at, &key)) || *(at = after_space(at)) != ':') return NULL;
                at++;
            }
            if (!(at = parse_value(at, entry, depth + 1))) return NULL;
            entry->key = key;
            place = &entry->next;
            at = after_space(at);
            if (*at == end) return at + 1;
            if (*at != ',') return NULL;
            at = after_space(at + 1);
        }
    }
    if (!strncmp(at, "null", 4) || !strncmp(at, "true", 4)) return at + 4;
    if (!strncmp(at, "false", 5)) return at + 5;
    if (strspn(at, "-0123456789") == 0) return NULL;
    value->kind = '0';
    value->number = strtod(at, NULL);
    return at + strspn(at, "+-0123456789.eE");
}

/* A whole text as one value, or NULL. */
static Json *parse_json(const char *text) {
    Json *value = get_memory(1, sizeof *value);
    const char *end = parse_value(text, value, 0);
    return end && *after_space(end) == '\0' ? value : NULL;
}

static Json *get(const Json *object, const char *key) {
    Json *entry = object && object->kind == '{' ? object->first : NULL;
    while (entry && strcmp(entry->key, key)) entry = entry->next;
    return entry;
}

static const char *text_of(const Json *value) { return value && value->kind == '"' ? value->text : ""; }
static double number_of(const Json *value) { return value && value->kind == '0' ? value->number : NAN; }

/* ---- tensors --------------------------------------------------------------------------------------------------------- */

typedef struct Tensor {
    const char *name;
    int dimensions, is_whole;
    size_t shape[8], count;
    double *data;
    struct Tensor *next;
} Tensor;

static Tensor *find(Tensor *tensor, const char *name) {
    while (tensor && strcmp(tensor->name, name)) tensor = tensor->next;
    return tensor;
}

/* One little-endian number of a tensor's bytes. */
static double number_at(const unsigned char *bytes, size_t size, int is_float) {
    uint64_t bits = 0;
    double wide;
    float narrow;
    uint32_t half = 0;
    size_t i;
    for (i = 0; i < size; i++) bits |= (uint64_t)bytes[i] << (8 * i);
    if (is_float && size == 8) {
        memcpy(&wide, &bits, 8);
        return wide;
    }
    if (is_float) {
        half = (uint32_t)bits;
        memcpy(&narrow, &half, 4);
        return narrow;
    }
    if (size == 8) return bits >> 63 ? -(double)(~bits + 1) : (double)bits;
    return size == 4 && bits >> 31 ? (double)bits - 4294967296.0 : (double)bits;
}

static int add_shape(Tensor *tensor, const Json *shape) {
    const Json *entry = shape && shape->kind == '[' ? shape->first : NULL;
    tensor->count = 1;
    for (; entry; entry = entry->next) {
        if (tensor->dimensions == 8 || !(entry->number >= 0 && entry->number <= LARGEST_FILE)) return 0;
        tensor->count *= tensor->shape[tensor->dimensions++] = (size_t)entry->number;
        if (tensor->count > (size_t)LARGEST_FILE) return 0;
    }
    return shape != NULL;
}

/* All tensors of a safetensors file in front of `rest`; *why says what is wrong with it. */
static Tensor *read_safetensors(const char *path, Tensor *rest, const char **why) {
    size_t size = 0, i;
    unsigned char *bytes = (unsigned char *)read_file(path, &size);
    uint64_t header = 0;
    char *text;
    const Json *entry;
    *why = "the file is missing";
    if (!bytes) return NULL;
    *why = "the file is cut off";
    for (i = 0; i < 8 && size >= 8; i++) header |= (uint64_t)bytes[i] << (8 * i);
    if (size < 8 || header > size - 8) return NULL;
    text = get_memory(header + 1, 1);
    memcpy(text, bytes + 8, header);
    *why = "its header is no JSON";
    if (!(entry = parse_json(text)) || entry->kind != '{') return NULL;
    for (entry = entry->first; entry; entry = entry->next) {
        Tensor *tensor = get_memory(1, sizeof *tensor);
        const char *dtype = text_of(get(entry, "dtype"));
        const Json *offsets = get(entry, "data_offsets");
        size_t width = !strcmp(dtype, "F64") || !strcmp(dtype, "I64")   ? 8
                       : !strcmp(dtype, "F32") || !strcmp(dtype, "I32") ? 4
                       : !strcmp(dtype, "U8") || !strcmp(dtype, "BOOL") ? 1
                                                                        : 0;
        double from, to;
        if (!strcmp(entry->key, "__metadata__")) continue;
        *why = "a tensor has a type or shape that is not known here";
        if (!width || !add_shape(tensor, get(entry, "shape")) || !offsets || !offsets->first) return NULL;
        from = number_of(offsets->first);
        to = number_of(offsets->first->next);
        *why = "a tensor is cut off";
        if (!(from >= 0) || to - from != (double)(tensor->count * width) || !(8 + (double)header + to <= (double)size)) return NULL;
        tensor->name = entry->key;
        tensor->is_whole = dtype[0] != 'F';
        tensor->data = get_memory(tensor->count, sizeof(double));
        for (i = 0; i < tensor->count; i++)
            tensor->data[i] = number_at(bytes + 8 + header + (size_t)from + i * width, width, dtype[0] == 'F');
        tensor->next = rest;
        rest = tensor;
    }
    *why = NULL;
    return rest;
}

/* A nested list of numbers: first its shape along the first entries, then the numbers, whose rows must all fit. */
static int add_numbers(Tensor *tensor, const Json *list, int axis, size_t *filled) {
    const Json *entry;
    size_t length = 0;
    if (axis == tensor->dimensions) {
        if (list->kind != '0' || *filled >= tensor->count) return 0;
        if (list->number != floor(list->number)) tensor->is_whole = 0;
        tensor->data[(*filled)++] = list->number;
        return 1;
    }
    if (list->kind != '[') return 0;
    for (entry = list->first; entry; entry = entry->next, length++)
        if (!add_numbers(tensor, entry, axis + 1, filled)) return 0;
    return length == tensor->shape[axis];
}

static Tensor *tensor_of_list(const Json *list, Tensor *rest) {
    Tensor *tensor = get_memory(1, sizeof *tensor);
    const Json *inner, *entry;
    size_t filled = 0;
    tensor->name = list->key;
    tensor->is_whole = 1;
    tensor->count = 1;
    for (inner = list; inner && inner->kind == '['; inner = inner->first) {
        size_t length = 0;
        if (tensor->dimensions == 8) return NULL;
        for (entry = inner->first; entry; entry = entry->next) length++;
        tensor->count *= tensor->shape[tensor->dimensions++] = length;
        if (tensor->count > (size_t)LARGEST_FILE) return NULL;
    }
    tensor->data = get_memory(tensor->count, sizeof(double));
    if (!add_numbers(tensor, list, 0, &filled)) return NULL;
    tensor->next = rest;
    return tensor;
}

/* ---- results ---------------------------------------------------------------------------------------------------------- */

typedef struct Result {
    Tensor *outputs;
    const char *failed;
    int is_refused, is_unsupported;
} Result;

static Result read_result(const char *folder, const char *id) {
    Result result = {NULL, NULL, 0, 0};
    char path[4096];
    size_t size = 0;
    char *text;
    Json *found, *entry;
    FILE *file;
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, id);
    if ((file = fopen(path, "rb"))) {
        fclose(file);
        result.outputs = read_safetensors(path, NULL, &result.failed);
        return result;
    }
    snprintf(path, sizeof path, "%s/%s.json", folder, id);
    result.failed = "there is no result";
    if (!(text = read_file(path, &size))) return result;
    result.failed = "the result is no JSON";
    if (!(found = parse_json(text))) return result;
    result.is_refused = get(found, "refused") != NULL;
    result.is_unsupported = get(found, "unsupported") != NULL;
    result.failed = result.is_refused || result.is_unsupported || get(found, "outputs") ? NULL : "the result says nothing";
    entry = get(found, "outputs");
    for (entry = entry && entry->kind == '{' ? entry->first : NULL; entry; entry = entry->next) {
        Tensor *tensor = tensor_of_list(entry, result.outputs);
        if (!tensor) {
            result.failed = "an output is no nested list of numbers with rows of one length";
            return result;
        }
        result.outputs = tensor;
    }
    return result;
}

/* Whether the outputs are answer `n` of a case; if not, `why` says so. */
static int is_answer(const Json *entry, int n, Tensor *answers, Tensor *found, const char *dtype, char *why, size_t room) {
    const Json *output;
    for (output = get(entry, "outputs")->first; output; output = output->next) {
        char name[512];
        Tensor *expected, *got = find(found, output->key);
        double allowed = output->kind == 'n' ? 0 : number_of(get(output, dtype));
        size_t i;
        snprintf(name, sizeof name, "%s/%d/%s", text_of(get(entry, "id")), n, output->key);
        expected = find(answers, name);
        if (!expected || !got) {
            snprintf(why, room, "there is no output %s", output->key);
            return 0;
        }
        if (got->dimensions != expected->dimensions || memcmp(got->shape, expected->shape, sizeof got->shape)) {
            snprintf(why, room, "%s has another shape", output->key);
            return 0;
        }
        if (output->kind == 'n' && !got->is_whole) {
            snprintf(why, room, "%s holds numbers that are not whole", output->key);
            return 0;
        }
        for (i = 0; i < expected->count; i++)
            if (!(fabs(got->data[i] - expected->data[i]) <= allowed)) { /* so that a NaN is wrong, too */
                snprintf(why, room, "%s, number %lu: %.10g, not %.10g (allowed %g)", output->key, (unsigned long)i,
                         got->data[i], expected->data[i], allowed);
                return 0;
            }
    }
    return 1;
}

enum Status { PASSED, FAILED, SKIPPED };

static enum Status judge(const Json *entry, Tensor *answers, Result result, const char *dtype, char *why, size_t room) {
    int is_invalid = !strcmp(text_of(get(entry, "result")), "invalid"), n;
    const Json *output;
    snprintf(why, room, "needs %s", text_of(get(entry, "needs")));
    if (get(entry, "needs") && !result.outputs) return SKIPPED;
    for (output = get(entry, "types") ? get(entry, "types")->first : NULL; output && strcmp(text_of(output), dtype);) output = output->next;
    snprintf(why, room, "not stated for %s", dtype);
    if (get(entry, "types") && !output) return SKIPPED;
    snprintf(why, room, "%s", result.failed ? result.failed : "the program does not do this");
    if (result.failed) return FAILED;
    if (result.is_unsupported) return SKIPPED;
    if (result.is_refused) {
        snprintf(why, room, "refused");
        return is_invalid || get(entry, "may_refuse") ? PASSED : FAILED;
    }
    snprintf(why, room, "not refused");
    if (is_invalid) return FAILED;
    snprintf(why, room, "no tolerance is stated for %s", dtype);
    for (output = get(entry, "outputs")->first; output; output = output->next)
        if (output->kind != 'n' && !get(output, dtype)) return SKIPPED;
    for (n = 1; n <= (int)number_of(get(entry, "answers")); n++)
        if (is_answer(entry, n, answers, result.outputs, dtype, why, room)) return PASSED;
    return FAILED;
}

/* ---- an implementation of L1, of the window of L2 and of their gradients (L8), straight from the definition ------------- */

/* The case's inputs: CASE/name. */
static Tensor *input(Tensor *inputs, const Json *entry, const char *name) {
    char key[512];
    snprintf(key, sizeof key, "%s/%s", text_of(get(entry, "id")), name);
    return find(inputs, key);
}

static Tensor *make(const char *name, int dimensions, const size_t *shape) {
    Tensor *tensor = get_memory(1, sizeof *tensor);
    int axis;
    tensor->name = name;
    tensor->dimensions = dimensions;
    tensor->count = 1;
    for (axis = 0; axis < dimensions; axis++) tensor->count *= tensor->shape[axis] = shape[axis];
    tensor->data = get_memory(tensor->count, sizeof(double));
    return tensor;
}

static double dot(const double *a, const double *b, size_t length) {
    double sum = 0;
    size_t i;
    for (i = 0; i < length; i++) sum += a[i] * b[i];
    return sum;
}

static void layer_norm(double *y, const double *x, size_t width, const Tensor *weight, const Tensor *bias) {
    double mean = 0, variance = 0;
    size_t i;
    for (i = 0; i < width; i++) mean += x[i] / (double)width;
    for (i = 0; i < width; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)width;
    for (i = 0; i < width; i++) y[i] = (x[i] - mean) / sqrt(variance + 1e-5) * weight->data[i] + bias->data[i];
}

/* In place, over the places that are open; 0 at the others. */
static void softmax(double *scores, const char *is_open, size_t length) {
    double peak = -INFINITY, total = 0;
    size_t i;
    for (i = 0; i < length; i++)
        if (is_open[i] && scores[i] > peak) peak = scores[i];
    for (i = 0; i < length; i++) total += scores[i] = is_open[i] ? exp(scores[i] - peak) : 0;
    for (i = 0; i < length && total > 0; i++) scores[i] /= total;
}

/* What each local token takes from the local tokens in its window and from all global ones, each once. */
static Tensor *window(const Tensor *q, const Tensor *k, const Tensor *v, const Tensor *seen, const Tensor *marks, long radius) {
    size_t heads = q->shape[0], length = q->shape[1], width = q->shape[2], h, i, j, c, shape[2];
    double *scores = get_memory(length, sizeof(double));
    char *is_open = get_memory(length, 1);
    Tensor *out;
    shape[0] = length;
    shape[1] = heads * width;
    out = make("out", 2, shape);
    for (h = 0; h < heads; h++)
        for (i = 0; i < length; i++) {
            if (seen->data[i] * (marks->data[i] + 1) != 1) continue; /* 0 masked, 1 local, 2 global */
            for (j = 0; j < length; j++) {
                double kind = seen->data[j] * (marks->data[j] + 1);
                is_open[j] = kind == 2 || (kind == 1 && labs((long)i - (long)j) <= radius);
                scores[j] = dot(q->data + (h * length + i) * width, k->data + (h * length + j) * width, width) / sqrt((double)width);
            }
            softmax(scores, is_open, length);
            for (j = 0; j < length; j++)
                for (c = 0; c < width; c++)
                    out->data[(i * heads + h) * width + c] += scores[j] * v->data[(h * length + j) * width + c];
        }
    return out;
}

/* ---- gradients: a name and .grad, all outputs of a case in one list */

/* What a change of the probabilities says of the scores, in place of the former: p (dp - sum p dp). */
static void softmax_backward(double *dp, const double *probabilities, size_t length) {
    double expected = dot(dp, probabilities, length);
    size_t i;
    for (i = 0; i < length; i++) dp[i] = probabilities[i] * (dp[i] - expected);
}

/* The gradient of one row; those of weight and bias are added to. */
static void layer_norm_backward(double *dx, const double *dy, const double *x, const Tensor *weight, double *dweight, double *dbias) {
    size_t width = weight->count, i;
    double mean = 0, variance = 0, level = 0, along = 0, scale;
    for (i = 0; i < width; i++) mean += x[i] / (double)width;
    for (i = 0; i < width; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)width;
    scale = 1 / sqrt(variance + 1e-5);
    for (i = 0; i < width; i++) {
        double normal = (x[i] - mean) * scale, dn = dy[i] * weight->data[i];
        dweight[i] += dy[i] * normal;
        dbias[i] += dy[i];
        level += dn / (double)width;
        along += dn * normal / (double)width;
    }
    for (i = 0; i < width; i++) dx[i] = scale * (dy[i] * weight->data[i] - level - (x[i] - mean) * scale * along);
}

/* A tensor of zeros in front of `rest`, of the shape of another. */
static Tensor *zeros(const char *name, const Tensor *like, Tensor *rest) {
    Tensor *tensor = make(name, like->dimensions, like->shape);
    tensor->next = rest;
    return tensor;
}

static double slope(const char *activation, double x) {
    double pi = acos(-1), share = 1 / (1 + exp(-x)), t = tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x));
    if (!strcmp(activation, "relu_backward")) return x > 0;
    if (!strcmp(activation, "silu_backward")) return share * (1 + x * (1 - share));
    if (!strcmp(activation, "gelu_backward")) return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * pi);
    return (1 + t) / 2 + x * (1 - t * t) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x) / 2;
}

/* Each query hands its gradient on to the keys that it saw. */
static Tensor *window_backward(const Tensor *q, const Tensor *k, const Tensor *v, const Tensor *dout, const double *kinds, long radius) {
    size_t heads = q->shape[0], length = q->shape[1], width = q->shape[2], h, i, j, c;
    Tensor *dq = zeros("q.grad", q, NULL), *dk = zeros("k.grad", k, dq), *dv = zeros("v.grad", v, dk);
    double *scores = get_memory(length, sizeof(double)), *dscores = get_memory(length, sizeof(double));
    char *is_open = get_memory(length, 1);
    for (h = 0; h < heads; h++)
        for (i = 0; i < length; i++) {
            size_t query = (h * length + i) * width;
            const double *d = dout->data + (i * heads + h) * width;
            if (kinds[i] != 1) continue;
            for (j = 0; j < length; j++) {
                size_t key = (h * length + j) * width;
                is_open[j] = kinds[j] == 2 || (kinds[j] == 1 && labs((long)i - (long)j) <= radius);
                scores[j] = dot(q->data + query, k->data + key, width) / sqrt((double)width);
                dscores[j] = dot(d, v->data + key, width);
            }
            softmax(scores, is_open, length);
            softmax_backward(dscores, scores, length);
            for (j = 0; j < length; j++)
                for (c = 0; c < width; c++) {
                    size_t key = (h * length + j) * width + c;
                    dv->data[key] += scores[j] * d[c];
                    dq->data[query + c] += dscores[j] / sqrt((double)width) * k->data[key];
                    dk->data[key] += dscores[j] / sqrt((double)width) * q->data[query + c];
                }
        }
    return dv;
}

static Tensor *linear_backward(const Tensor *x, const Tensor *weight, const Tensor *bias, const Tensor *dy) {
    size_t out = weight->shape[0], width = weight->shape[1], rows = dy->count / out, r, i, o;
    Tensor *dx = zeros("x.grad", x, NULL), *dweight = zeros("weight.grad", weight, dx), *dbias = zeros("bias.grad", bias, dweight);
    for (r = 0; r < rows; r++)
        for (o = 0; o < out; o++) {
            double d = dy->data[r * out + o];
            dbias->data[o] += d;
            for (i = 0; i < width; i++) {
                dx->data[r * width + i] += d * weight->data[o * width + i];
                dweight->data[o * width + i] += d * x->data[r * width + i];
            }
        }
    return dbias;
}

static Tensor *loss_backward(const Tensor *logits, const Tensor *labels, double smoothing) {
    size_t width = logits->shape[logits->dimensions - 1], r, i, none[1] = {0};
    Tensor *dlogits = zeros("logits.grad", logits, NULL), *loss = make("loss", 0, none);
    char *is_open = get_memory(width, 1);
    double counted = 0;
    loss->next = dlogits;
    memset(is_open, 1, width);
    for (r = 0; r < labels->count; r++) counted += labels->data[r] != -100;
    for (r = 0; r < labels->count; r++) {
        const double *s = logits->data + r * width;
        double *d = dlogits->data + r * width, peak = s[0], total = 0, sum = 0;
        size_t label = (size_t)labels->data[r];
        if (labels->data[r] == -100) continue;
        for (i = 0; i < width; i++) peak = s[i] > peak ? s[i] : peak;
        for (i = 0; i < width; i++) total += exp(s[i] - peak), sum += s[i];
        loss->data[0] += (peak + log(total) - (1 - smoothing) * s[label] - smoothing * sum / (double)width) / counted;
        memcpy(d, s, width * sizeof(double));
        softmax(d, is_open, width);
        d[label] -= 1 - smoothing;
        for (i = 0; i < width; i++) d[i] = (d[i] - smoothing / (double)width) / counted;
    }
    return loss;
}

/* Every weight of the case, and both of its moments, after a step. */
static Tensor *adamw(const Json *entry, Tensor *inputs) {
    const Json *arguments = get(entry, "arguments"), *named;
    double rate = number_of(get(arguments, "learning_rate")), eps = number_of(get(arguments, "adam_epsilon"));
    double b1 = number_of(get(arguments, "adam_beta1")), b2 = number_of(get(arguments, "adam_beta2"));
    double step = number_of(get(arguments, "step"));
    Tensor *found = NULL;
    for (named = get(entry, "inputs")->first; named; named = named->next) {
        static const char *const parts[] = {"", ".grad", ".exp_avg", ".exp_avg_sq"};
        const char *name = named->text;
        Tensor *of[4], *w, *m, *v;
        size_t length = strlen(name), i;
        double decay = strstr(name, "norm") || (length > 5 && !strcmp(name + length - 5, ".bias")) ? 0 : number_of(get(arguments, "weight_decay"));
        char *keys[4];
        for (i = 0; i < 4; i++) {
            keys[i] = get_memory(length + 12, 1);
            strcat(strcpy(keys[i], name), parts[i]);
            of[i] = input(inputs, entry, keys[i]);
        }
        if (!of[1]) continue;
        w = found = zeros(keys[0], of[0], found);
        m = found = zeros(keys[2], of[0], found);
        v = found = zeros(keys[3], of[0], found);
        for (i = 0; i < w->count; i++) {
            double g = of[1]->data[i];
            m->data[i] = b1 * of[2]->data[i] + (1 - b1) * g;
            v->data[i] = b2 * of[3]->data[i] + (1 - b2) * g * g;
            w->data[i] = of[0]->data[i] * (1 - rate * decay)
                         - rate * m->data[i] / (1 - pow(b1, step)) / (sqrt(v->data[i] / (1 - pow(b2, step))) + eps);
        }
    }
    return found;
}

/* The answer to a case of gradients, or NULL. */
static Tensor *compute_gradients(const Json *entry, Tensor *inputs) {
    const char *operation = text_of(get(entry, "operation"));
    const Json *arguments = get(entry, "arguments");
    Tensor *x = input(inputs, entry, "x"), *weight = input(inputs, entry, "weight"), *bias = input(inputs, entry, "bias");
    Tensor *dy = input(inputs, entry, "y.grad"), *dx, *dweight, *dbias;
    size_t i, r;
    if (!strcmp(operation, "adamw")) return adamw(entry, inputs);
    if (!strcmp(operation, "linear_backward")) return linear_backward(x, weight, bias, dy);
    if (!strcmp(operation, "loss_backward"))
        return loss_backward(input(inputs, entry, "logits"), input(inputs, entry, "labels"), number_of(get(arguments, "label_smoothing")));
    if (!strcmp(operation, "layer_norm_backward")) {
        dx = zeros("x.grad", x, NULL);
        dbias = zeros("bias.grad", bias, dweight = zeros("weight.grad", weight, dx));
        for (r = 0; r < x->count; r += weight->count)
            layer_norm_backward(dx->data + r, dy->data + r, x->data + r, weight, dweight->data, dbias->data);
        return dbias;
    }
    if (!strcmp(operation, "gelu_backward") || !strcmp(operation, "relu_backward") || !strcmp(operation, "silu_backward")
        || !strcmp(operation, "gelu_new_backward")) {
        dx = zeros("x.grad", x, NULL);
        for (i = 0; i < x->count; i++) dx->data[i] = dy->data[i] * slope(operation, x->data[i]);
        return dx;
    }
    if (!strcmp(operation, "softmax_backward")) {
        const Tensor *scores = input(inputs, entry, "scores"), *may_look = input(inputs, entry, "may_look");
        char *is_open = get_memory(scores->count, 1);
        size_t width = scores->shape[1];
        dx = zeros("scores.grad", scores, NULL);
        memcpy(dx->data, dy->data, dy->count * sizeof(double));
        for (i = 0; i < scores->count; i++) is_open[i] = may_look->data[i] == 1;
        for (r = 0; r < scores->count; r += width) {
            softmax(scores->data + r, is_open + r, width);
            softmax_backward(dx->data + r, scores->data + r, width);
        }
        return dx;
    }
    if (!strcmp(operation, "embed_backward")) {
        const Tensor *ids = input(inputs, entry, "ids"), *table = input(inputs, entry, "table");
        const Tensor *positions = input(inputs, entry, "positions");
        Tensor *dtable = zeros("table.grad", table, NULL), *dpositions = zeros("positions.grad", positions, dtable);
        size_t width = weight->count;
        double *sum = get_memory(width, sizeof(double));
        dbias = zeros("bias.grad", bias, dweight = zeros("weight.grad", weight, dpositions));
        for (r = 0; r < ids->count; r++) {
            size_t row = (size_t)ids->data[r] * width;
            for (i = 0; i < width; i++) sum[i] = table->data[row + i] + positions->data[r * width + i];
            layer_norm_backward(dpositions->data + r * width, dy->data + r * width, sum, weight, dweight->data, dbias->data);
            if (ids->data[r] != number_of(get(arguments, "pad_token_id"))) /* a pad id that is looked up teaches nothing */
                for (i = 0; i < width; i++) dtable->data[row + i] += dpositions->data[r * width + i];
        }
        return dbias;
    }
    if (!strcmp(operation, "window_backward")) {
        const Tensor *seen = input(inputs, entry, "attention_mask"), *marks = input(inputs, entry, "global_attention_mask");
        double *kinds = get_memory(seen->count, sizeof(double)); /* 0 masked, 1 local, 2 global */
        for (i = 0; i < seen->count; i++) kinds[i] = seen->data[i] * (marks->data[i] + 1);
        return window_backward(input(inputs, entry, "q"), input(inputs, entry, "k"), input(inputs, entry, "v"), dy, kinds,
                               (long)number_of(get(arguments, "radius")));
    }
    return NULL;
}

/* The answer to a case, or NULL if its operation is not one of these. */
static Tensor *compute(const Json *entry, Tensor *inputs) {
    const char *operation = text_of(get(entry, "operation"));
    const Json *arguments = get(entry, "arguments");
    Tensor *x = input(inputs, entry, "x"), *weight = input(inputs, entry, "weight"), *bias = input(inputs, entry, "bias"), *y;
    size_t width = x && x->dimensions ? x->shape[x->dimensions - 1] : 1, r, i;
    if (!strcmp(operation, "linear")) {
        size_t out = weight->shape[0], shape[8];
        memcpy(shape, x->shape, sizeof shape);
        shape[x->dimensions - 1] = out;
        y = make("y", x->dimensions, shape);
        for (i = 0; i < y->count; i++)
            y->data[i] = dot(x->data + i / out * width, weight->data + i % out * width, width) + bias->data[i % out];
        return y;
    }
    if (!strcmp(operation, "layer_norm")) {
        y = make("y", x->dimensions, x->shape);
        for (r = 0; r < x->count / width; r++) layer_norm(y->data + r * width, x->data + r * width, width, weight, bias);
        return y;
    }
    if (!strcmp(operation, "gelu")) {
        y = make("y", x->dimensions, x->shape);
        for (i = 0; i < x->count; i++) y->data[i] = x->data[i] * (1 + erf(x->data[i] / sqrt(2))) / 2;
        return y;
    }
    if (!strcmp(operation, "relu")) {
        y = make("y", x->dimensions, x->shape);
        for (i = 0; i < x->count; i++) y->data[i] = x->data[i] > 0 ? x->data[i] : 0;
        return y;
    }
    if (!strcmp(operation, "silu")) {
        y = make("y", x->dimensions, x->shape);
        for (i = 0; i < x->count; i++) y->data[i] = x->data[i] / (1 + exp(-x->data[i]));
        return y;
    }
    if (!strcmp(operation, "gelu_new")) {
        y = make("y", x->dimensions, x->shape);
        for (i = 0; i < x->count; i++) {
            double v = x->data[i];
            y->data[i] = v * (1 + tanh(sqrt(2 / acos(-1)) * (v + 0.044715 * v * v * v))) / 2;
        }
        return y;
    }
    if (!strcmp(operation, "softmax")) {
        const Tensor *scores = input(inputs, entry, "scores"), *may_look = input(inputs, entry, "may_look");
        char *is_open = get_memory(scores->count, 1);
        y = make("y", 2, scores->shape);
        for (i = 0; i < y->count; i++) is_open[i] = may_look->data[i] == 1;
        memcpy(y->data, scores->data, y->count * sizeof(double));
        for (r = 0; r < y->shape[0]; r++) softmax(y->data + r * y->shape[1], is_open + r * y->shape[1], y->shape[1]);
        return y;
    }
    if (!strcmp(operation, "embed")) {
        const Tensor *ids = input(inputs, entry, "ids"), *table = input(inputs, entry, "table");
        const Tensor *positions = input(inputs, entry, "positions");
        size_t shape[2];
        shape[0] = ids->count;
        shape[1] = table->shape[1];
        y = make("y", 2, shape);
        for (i = 0; i < y->count; i++)
            y->data[i] = table->data[(size_t)ids->data[i / shape[1]] * shape[1] + i % shape[1]] + positions->data[i];
        for (r = 0; r < shape[0]; r++) layer_norm(y->data + r * shape[1], y->data + r * shape[1], shape[1], weight, bias);
        return y;
    }
    if (!strcmp(operation, "shift")) {
        const Tensor *labels = input(inputs, entry, "labels");
        y = make("decoder_input_ids", 2, labels->shape);
        y->is_whole = 1;
        for (i = 0; i < y->count; i++) {
            y->data[i] = i % y->shape[1] ? labels->data[i - 1] : number_of(get(arguments, "decoder_start_token_id"));
            if (y->data[i] == -100) y->data[i] = number_of(get(arguments, "pad_token_id"));
        }
        return y;
    }
    if (!strcmp(operation, "window"))
        return window(input(inputs, entry, "q"), input(inputs, entry, "k"), input(inputs, entry, "v"),
                      input(inputs, entry, "attention_mask"), input(inputs, entry, "global_attention_mask"),
                      (long)number_of(get(arguments, "radius")));
    return compute_gradients(entry, inputs);
}

/* ---- the command line ------------------------------------------------------------------------------------------------- */

static int stop(const char *path, const char *why) {
    fprintf(stderr, "check: %s: %s\n", path, why);
    return 2;
}

int main(int count, char **words) {
    static const char *const verdicts[] = {"passed", "failed", "skipped"};
    static const char *const dtypes[] = {"float64", "float32", "float16", "bfloat16"};
    const char *dtype = count > 3 ? words[3] : "float64", *why = NULL;
    char path[4096], reason[1024];
    const Json *index, *level, *entry, *flag;
    const char *before;
    size_t size = 0;
    int any_failed = 0;
    for (size = 0; size < 4 && strcmp(dtype, dtypes[size]); size++) continue;
    if (count < 2 || count > 4 || size == 4) return stop("usage", "check VECTORS [RESULTS [float64|float32|float16|bfloat16]]");
    snprintf(path, sizeof path, "%s/index.json", words[1]);
    {
        char *text = read_file(path, &size);
        if (!text) return stop(path, strerror(errno));
        index = parse_json(text);
    }
    if (strcmp(text_of(get(index, "format")), "led-vectors/1")) return stop(path, "is no index of the format led-vectors/1");
    for (level = get(index, "levels")->first; level; level = level->next) {
        Tensor *inputs, *answers;
        int counts[3] = {0, 0, 0};
        snprintf(path, sizeof path, "%s/%s.inputs.safetensors", words[1], level->key);
        inputs = read_safetensors(path, NULL, &why);
        if (why) return stop(path, why);
        snprintf(path, sizeof path, "%s/%s.outputs.safetensors", words[1], level->key);
        answers = read_safetensors(path, NULL, &why);
        if (why) return stop(path, why);
        for (entry = get(index, "cases")->first; entry; entry = entry->next) {
            const char *id = text_of(get(entry, "id"));
            Result result = {NULL, NULL, 0, 0};
            enum Status status;
            if (strncmp(id, level->key, strlen(level->key)) || id[strlen(level->key)] != '-') continue;
            if (count > 2) {
                result = read_result(words[2], id);
            } else if (!(result.outputs = compute(entry, inputs))) {
                continue;
            }
            status = judge(entry, answers, result, dtype, reason, sizeof reason);
            counts[status]++;
            any_failed |= status == FAILED;
            printf("%s: %s", id, verdicts[status]);
            if (status != PASSED) {
                printf(": %s", reason);
                for (flag = get(entry, "flags")->first, before = "   ["; flag; flag = flag->next, before = ", ") {
                    printf("%s%s", before, flag->text);
                    if (!flag->next) printf("]");
                }
            }
            printf("\n");
        }
        if (counts[PASSED] + counts[FAILED] + counts[SKIPPED])
            printf("%s: %d passed, %d failed, %d skipped\n", level->key, counts[PASSED], counts[FAILED], counts[SKIPPED]);
    }
    return any_failed;
}
