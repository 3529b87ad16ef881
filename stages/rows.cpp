// A transformer block on some rows of a frame, in float32: products with packed weights, attention over kept keys and values.
//
// A product is done panel by panel: NR columns of W^T, packed as deep as the layer, against tiles of MR rows whose sums stay
// in registers over the whole depth. Bias, GELU and the residual are applied to a tile before the next one. So few rows run
// as near to the processor's limit as many do, and a row's result doesn't depend on the rows beside it.
//
// Compiled on the user's machine by `deltascene doctor --build-kernels`, never silently; without it rows.py runs the same
// block through PyTorch. Scale and shift of the norms and LayerScale are folded into the weights (folded.py).

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace {

using at::Tensor;
using V = at::vec::Vectorized<float>;

constexpr int64_t L = V::size();  // floats of a vector
constexpr int64_t NR = 2 * L;     // columns of a panel
#ifdef CPU_CAPABILITY_AVX512
constexpr int MR = 12;  // rows of a tile: 2 MR sums, 2 vectors of the panel and 1 of x fit the 32 registers
#else
constexpr int MR = 6;  // of 16
#endif
constexpr int64_t STACK = 96;         // rows that go against a panel of weights while it is in the cache
constexpr int64_t DEPTH = 768;        // of a layer's inputs, for the same reason
constexpr int64_t QUERIES = 4 * MR;   // rows that go against a panel of keys or values, for the same reason

// NR columns of a matrix.
struct Panel {
  const float* from;
  int64_t step, depth;  // floats from one row to the next; rows
  int64_t ahead;        // floats to what will be read soon, and may lie in memory still
};

// Sums of M rows over a panel: done(row, left, right) gets each row's.
template <int M, typename Done>
inline void tile(const float* x, int64_t x_step, const Panel& panel, Done done) {
  V sum[M][2];
  for (int m = 0; m < M; ++m) sum[m][0] = sum[m][1] = V(0.f);
  const float* from = panel.from;
  for (int64_t k = 0; k < panel.depth; ++k, from += panel.step) {
    const V left = V::loadu(from), right = V::loadu(from + L);
    __builtin_prefetch(from + panel.ahead);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const V value(x[m * x_step + k]);
      sum[m][0] = at::vec::fmadd(value, left, sum[m][0]);
      sum[m][1] = at::vec::fmadd(value, right, sum[m][1]);
    }
  }
  for (int m = 0; m < M; ++m) done(m, sum[m][0], sum[m][1]);
}

// The last rows of a stack, fewer than MR.
template <int M, typename Done>
inline void rest(int64_t rows, const float* x, int64_t x_step, const Panel& panel, Done done) {
  if constexpr (M > 0) {
    if (rows == M) return tile<M>(x, x_step, panel, done);
    rest<M - 1>(rows, x, x_step, panel, done);
  }
}

template <typename Done>
inline void tiles(int64_t rows, const float* x, int64_t x_step, const Panel& panel, Done done) {
  int64_t first = 0;
  const auto shifted = [&](int64_t m, V left, V right) { done(first + m, left, right); };
  for (; first + MR <= rows; first += MR) tile<MR>(x + first * x_step, x_step, panel, shifted);
  rest<MR - 1>(rows - first, x + first * x_step, x_step, panel, shifted);
}

inline float total(V values) {
  return at::vec::vec_reduce_all<float>([](V a, V b) { return a + b; }, values);
}

inline V gelu(V x) { return V(0.5f) * x * (V(1.f) + (x * V(float(M_SQRT1_2))).erf()); }

// Rows of a part, of at most `most`: all parts alike, and of whole tiles.
inline int64_t alike(int64_t rows, int64_t most) {
  const int64_t parts = (rows + most - 1) / most, even = (rows + parts - 1) / parts;
  return (even + MR - 1) / MR * MR;
}

enum class After { store, gelu, add };  // what becomes of a product: y = it, y = gelu(it), y += it

// y [rows, out] of x [rows, in]; packed [out / NR, in, NR]. Deep layers go in parts: rows of a stack stay in the cache.
template <After after>
void linear(const float* x, int64_t rows, int64_t in, const float* packed, const float* bias, int64_t out, float* y) {
  const int64_t panels = out / NR, stack = alike(rows, STACK), stacks = (rows + stack - 1) / stack;
  at::parallel_for(0, stacks * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t last; begin < end; begin = last) {  // one stack after the other
      const int64_t first = begin / panels * stack, count = std::min(stack, rows - first);
      last = std::min(end, (begin / panels + 1) * panels);
      for (int64_t from = 0; from < in; from += DEPTH)
        for (int64_t item = begin; item < last; ++item) {
          const int64_t panel = item % panels, depth = std::min(DEPTH, in - from);
          const Panel weights{packed + (panel * in + from) * NR, NR, depth, in * NR};  // ahead: the next panel
          float* to = y + first * out + panel * NR;
          tiles(count, x + first * in + from, in, weights, [&](int64_t r, V left, V right) {
            float* at = to + r * out;
            if (from == 0) left = left + V::loadu(bias + panel * NR), right = right + V::loadu(bias + panel * NR + L);
            if (after == After::add || from > 0) left = left + V::loadu(at), right = right + V::loadu(at + L);
            left.store(at), right.store(at + L);
          });
          if (after == After::gelu && from + depth == in)  // at last, while it is near: a call in between would spill the sums
            for (int64_t r = 0; r < count; ++r)
              for (int64_t k = 0; k < NR; k += L) gelu(V::loadu(to + r * out + k)).store(to + r * out + k);
        }
    }
  });
}

// Rows to mean 0 and variance 1.
void normalise(const float* x, int64_t rows, int64_t width, float eps, float* y) {
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* from = x + r * width;
      V sum(0.f), squares(0.f);
      for (int64_t k = 0; k < width; k += L) sum = sum + V::loadu(from + k);
      const V mean(total(sum) / float(width));
      for (int64_t k = 0; k < width; k += L) {
        const V off = V::loadu(from + k) - mean;
        squares = at::vec::fmadd(off, off, squares);
      }
      const V scale(1.f / std::sqrt(total(squares) / float(width) + eps));
      for (int64_t k = 0; k < width; k += L) ((V::loadu(from + k) - mean) * scale).store(y + r * width + k);
    }
  });
}

// One stream's keys [heads, d, step >= tokens] and values [heads, tokens, d].
struct Scene {
  float *keys, *values;
  int64_t heads, d, tokens, step;
};

// Keys and values of some rows; null is all tokens in order. qkv [rows, 3 * heads * d].
void keep(const float* qkv, int64_t rows, const int64_t* places, const Scene& scene) {
  const int64_t width = scene.heads * scene.d;
  at::parallel_for(0, scene.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head)
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t token = places ? places[r] : r;
        const float *key = qkv + r * 3 * width + width + head * scene.d, *value = key + width;
        for (int64_t k = 0; k < scene.d; ++k) scene.keys[(head * scene.d + k) * scene.step + token] = key[k];
        std::copy_n(value, scene.d, scene.values + (head * scene.tokens + token) * scene.d);
      }
  });
}

// seen [rows, heads * d]; queries come scaled.
void attend(const float* qkv, int64_t rows, const Scene& scene, float* seen) {
  const int64_t width = scene.heads * scene.d, group = alike(rows, QUERIES), groups = (rows + group - 1) / group;
  const int64_t padded = (scene.tokens + NR - 1) / NR * NR;
  at::parallel_for(0, scene.heads * groups, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(group * padded);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t head = item / groups, first = item % groups * group, count = std::min(group, rows - first);
      const float* queries = qkv + first * 3 * width + head * scene.d;
      const float *keys = scene.keys + head * scene.d * scene.step, *values = scene.values + head * scene.tokens * scene.d;
      for (int64_t n = 0; n < padded; n += NR)
        tiles(count, queries, 3 * width, Panel{keys + n, scene.step, scene.d, NR}, [&](int64_t r, V left, V right) {
          left.store(&scores[r * padded + n]), right.store(&scores[r * padded + n + L]);
        });
      float share[QUERIES];
      for (int64_t r = 0; r < count; ++r) {
        float* row = &scores[r * padded];
        std::fill(row + scene.tokens, row + padded, -std::numeric_limits<float>::infinity());
        V top = V::loadu(row), sum(0.f);
        for (int64_t n = L; n < padded; n += L) top = at::vec::maximum(top, V::loadu(row + n));
        top = V(at::vec::vec_reduce_all<float>([](V a, V b) { return at::vec::maximum(a, b); }, top));
        for (int64_t n = 0; n < padded; n += L) {
          const V weight = (V::loadu(row + n) - top).exp_u20();
          weight.store(row + n);
          sum = sum + weight;
        }
        share[r] = 1.f / total(sum);
      }
      for (int64_t k = 0; k < scene.d; k += NR)
        tiles(count, scores.data(), padded, Panel{values + k, scene.d, scene.tokens, NR}, [&](int64_t r, V left, V right) {
          float* to = seen + (first + r) * width + head * scene.d + k;
          (left * V(share[r])).store(to), (right * V(share[r])).store(to + L);
        });
    }
  });
}

const float* floats(const Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kFloat, name, ": expected contiguous float32");
  return tensor.const_data_ptr<float>();
}

Scene scene_of(const Tensor& keys, const Tensor& values) {
  const int64_t heads = values.size(0), tokens = values.size(1), d = values.size(2), step = keys.stride(1);
  floats(values, "values");
  TORCH_CHECK(keys.scalar_type() == at::kFloat && keys.sizes() == at::IntArrayRef({heads, d, tokens}), "keys: expected float32 [heads, d, tokens]");
  TORCH_CHECK(keys.stride(0) == d * step && keys.stride(2) == 1 && step % NR == 0, "keys: expected rows of whole panels");
  return {keys.mutable_data_ptr<float>(), values.mutable_data_ptr<float>(), heads, d, tokens, step};
}

int64_t panel() { return NR; }

Tensor pack(const Tensor& weight_OI) {
  const int64_t out = weight_OI.size(0), in = weight_OI.size(1);
  TORCH_CHECK(out % NR == 0, "weight: expected a multiple of ", NR, " outputs; found ", out);
  return weight_OI.view({out / NR, NR, in}).transpose(1, 2).contiguous();
}

Tensor run_block(
    const Tensor& x_RD, at::TensorList weights, double eps1, double eps2, at::IntArrayRef counts,
    const c10::List<std::optional<Tensor>>& rows, at::TensorList keys, at::TensorList values) {
  const int64_t R = x_RD.size(0), D = x_RD.size(1), A = values[0].size(0) * values[0].size(2), H = weights[5].size(0);
  const float* w[8];
  for (int i = 0; i < 8; ++i) w[i] = floats(weights[i], "weights");
  const Tensor out = at::empty({R, D}, x_RD.options()), normed = at::empty({R, D}, x_RD.options());
  const Tensor qkv = at::empty({R, 3 * A}, x_RD.options()), seen = at::empty({R, A}, x_RD.options()), hidden = at::empty({R, H}, x_RD.options());
  const float* x = floats(x_RD, "x");
  float *y = out.mutable_data_ptr<float>(), *n = normed.mutable_data_ptr<float>(), *q = qkv.mutable_data_ptr<float>();
  float *s = seen.mutable_data_ptr<float>(), *h = hidden.mutable_data_ptr<float>();
  std::copy_n(x, R * D, y);
  normalise(x, R, D, float(eps1), n);
  linear<After::store>(n, R, D, w[0], w[1], 3 * A, q);
  int64_t first = 0;
  for (size_t part = 0; part < counts.size(); first += counts[part++]) {
    const Scene scene = scene_of(keys[part], values[part]);
    const std::optional<Tensor> chosen = rows.get(part);
    const int64_t* places = chosen ? chosen->const_data_ptr<int64_t>() : nullptr;
    TORCH_CHECK((chosen ? chosen->numel() : scene.tokens) == counts[part] && scene.heads * scene.d == A, "rows don't fit their scene");
    for (int64_t r = 0; places && r < counts[part]; ++r)
      TORCH_CHECK(places[r] >= 0 && places[r] < scene.tokens, "rows: expected 0 to ", scene.tokens - 1, "; found ", places[r]);
    keep(q + first * 3 * A, counts[part], places, scene);
    attend(q + first * 3 * A, counts[part], scene, s + first * A);
  }
  TORCH_CHECK(first == R, "rows: expected ", R, "; found ", first);
  linear<After::add>(s, R, A, w[2], w[3], D, y);
  normalise(y, R, D, float(eps2), n);
  linear<After::gelu>(n, R, D, w[4], w[5], H, h);
  linear<After::add>(h, R, H, w[6], w[7], D, y);
  return out;
}

Tensor apply_linear(const Tensor& x_RI, const Tensor& packed, const Tensor& bias_O) {
  const Tensor y = at::empty({x_RI.size(0), bias_O.size(0)}, x_RI.options());
  linear<After::store>(floats(x_RI, "x"), x_RI.size(0), x_RI.size(1), floats(packed, "packed"), floats(bias_O, "bias"), bias_O.size(0), y.mutable_data_ptr<float>());
  return y;
}

}  // namespace

TORCH_LIBRARY(deltascene, m) {
  m.def("panel() -> int", &panel);
  m.def("pack(Tensor weight) -> Tensor", &pack);
  m.def("linear(Tensor x, Tensor packed, Tensor bias) -> Tensor", &apply_linear);
  m.def(
      "run_block(Tensor x, Tensor[] weights, float eps1, float eps2, int[] counts, Tensor?[] rows, Tensor(a!)[] keys, "
      "Tensor(b!)[] values) -> Tensor",
      &run_block);
}
