// A transformer block on some rows of a frame: products with packed weights, attention over kept keys and values.
//
// A product is done panel by panel: NR columns of W^T, packed as deep as the layer, against tiles of MR rows whose sums stay
// in registers over the whole depth. Bias, GELU and the residual are applied to a tile before the next one. So few rows run
// as near to the processor's limit as many do, and a row's result doesn't depend on the rows beside it.
//
// Sums, norms, softmax and the residual stream are float32. What goes into a product is float32 or, where the processor
// multiplies it, bfloat16. Either way it is read in lanes of 32 bits: one float32, or two bfloat16 that follow each other
// along the inputs of a product. So there is one walk through a product, and the type only says what becomes of a lane.
//
// Compiled on the user's machine by `deltascene doctor --build-kernels`, never silently; without it rows.py runs the same
// block through PyTorch. Scale and shift of the norms and LayerScale are folded into the weights (folded.py).

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

using at::Tensor;
using V = at::vec::Vectorized<float>;

constexpr int64_t L = V::size();  // floats of a vector
constexpr int64_t NR = 2 * L;     // columns of a panel
constexpr int64_t LINE = 16;      // floats of a line of the processor's cache
#ifdef CPU_CAPABILITY_AVX512
constexpr int MR = 12;  // rows of a tile: 2 MR sums, 2 vectors of the panel and 1 of x fit the 32 registers
#else
constexpr int MR = 6;  // of 16
#endif
constexpr float NOTHING = -1e30f; // a score whose share is 0
constexpr int64_t STACK = 96;         // rows that go against a panel of weights while it is in the cache
constexpr int64_t DEPTH = 768;        // lanes of a layer's inputs, for the same reason
constexpr int64_t QUERIES = 4 * MR;   // rows that go against a panel of keys or values, for the same reason

// Inputs of a product as float32.
struct Float32 {
  using Value = float;
  static constexpr int64_t LANE = 1;  // values of a lane
  static V mad(V lanes, V weights, V sums) { return at::vec::fmadd(lanes, weights, sums); }
  static V exp(V x) { return x.exp_u20(); }
  static V gelu(V x) { return V(0.5f) * x * (V(1.f) + (x * V(float(M_SQRT1_2))).erf()); }
  static void store(V left, V right, Value* to) { left.store(to), right.store(to + L); }
};

#ifdef __AVX512BF16__
// As bfloat16, rounded to nearest even.
struct Bfloat16 {
  using Value = at::BFloat16;
  static constexpr int64_t LANE = 2;
  static V mad(V lanes, V weights, V sums) { return _mm512_dpbf16_ps(sums, (__m512bh)__m512(lanes), (__m512bh)__m512(weights)); }
  static void store(V left, V right, Value* to) { _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(right, left)); }

  // To 1e-4: 2^n times a cubic, the best one for 2^r between -1/2 and 1/2.
  static V exp(V x) {
    const V power = x * V(float(M_LOG2E)), whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT), r = power - whole;
    V cubic = at::vec::fmadd(r, V(0.05550332f), V(0.24022651f));
    cubic = at::vec::fmadd(at::vec::fmadd(cubic, r, V(0.69314718f)), r, V(1.f));
    return _mm512_scalef_ps(cubic, whole);
  }

  // max(x, 0) - |x| / 2 erfc(|x| / sqrt 2), to 1e-4. Source: Abramowitz and Stegun 7.1.28.
  static V gelu(V x) {
    const V positive = at::vec::maximum(x, V(0.f)), size = positive + positive - x, z = size * V(float(M_SQRT1_2));
    V root(0.0000430638f);
    for (const float next : {0.0002765672f, 0.0001520143f, 0.0092705272f, 0.0422820123f, 0.0705230784f, 1.f})
      root = at::vec::fmadd(root, z, V(next));
    for (int doubled = 0; doubled < 4; ++doubled) root = root * root;
    return positive - V(0.5f) * size * V(_mm512_rcp14_ps(root));
  }
};
#endif

template <typename T>
const float* lanes(const T* values) { return reinterpret_cast<const float*>(values); }  // compiled without strict aliasing

// NR columns of a matrix.
struct Panel {
  const float* from;    // lanes, as all that follows
  int64_t step, depth;  // from one row to the next; rows
  int64_t ahead;        // to what will be read soon, and may lie in memory still
};

// Sums of M rows over a panel: done(row, left, right) gets each row's. Never inlined: what the caller holds in registers
// would push the sums out of them, which halves the speed.
template <typename T, int M, typename Done>
[[gnu::noinline]] void tile(const float* x, int64_t x_step, const Panel& panel, const Done& done) {
  V sum[M][2];
  for (int m = 0; m < M; ++m) sum[m][0] = sum[m][1] = V(0.f);
  const float* from = panel.from;
  for (int64_t k = 0; k < panel.depth; ++k, from += panel.step) {
    const V left = V::loadu(from), right = V::loadu(from + L);
    __builtin_prefetch(from + panel.ahead);
    if (NR > LINE) __builtin_prefetch(from + panel.ahead + LINE);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const V value(x[m * x_step + k]);
      sum[m][0] = T::mad(value, left, sum[m][0]);
      sum[m][1] = T::mad(value, right, sum[m][1]);
    }
  }
  for (int m = 0; m < M; ++m) done(m, sum[m][0], sum[m][1]);
}

// The last rows of a stack, fewer than MR.
template <typename T, int M, typename Done>
inline void rest(int64_t rows, const float* x, int64_t x_step, const Panel& panel, const Done& done) {
  if constexpr (M > 0) {
    if (rows == M) return tile<T, M>(x, x_step, panel, done);
    rest<T, M - 1>(rows, x, x_step, panel, done);
  }
}

template <typename T, typename Done>
inline void tiles(int64_t rows, const float* x, int64_t x_step, const Panel& panel, const Done& done) {
  int64_t first = 0;
  const auto shifted = [&](int64_t m, V left, V right) { done(first + m, left, right); };
  for (; first + MR <= rows; first += MR) tile<T, MR>(x + first * x_step, x_step, panel, shifted);
  rest<T, MR - 1>(rows - first, x + first * x_step, x_step, panel, shifted);
}

inline float total(V values) {
  return at::vec::vec_reduce_all<float>([](V a, V b) { return a + b; }, values);
}

// Rows of a part, of at most `most`: all parts alike, and of whole tiles.
inline int64_t alike(int64_t rows, int64_t most) {
  const int64_t parts = (rows + most - 1) / most, even = (rows + parts - 1) / parts;
  return (even + MR - 1) / MR * MR;
}

enum class After { store, gelu, add };  // what becomes of a product: y = it, y = gelu(it), y += it

// y [rows, out] of x [rows, in]; packed [out / NR, in, NR], in being lanes. y is float32 where it is added to, T otherwise.
template <typename T, After after, typename Y>
void linear(const float* x, int64_t rows, int64_t in, const float* packed, const float* bias, int64_t out, Y* y) {
  const int64_t panels = out / NR, stack = alike(rows, STACK), stacks = (rows + stack - 1) / stack;
  const int64_t part = after == After::add ? DEPTH : in;  // sums of a part have to be float32
  at::parallel_for(0, stacks * panels, 1, [&](int64_t begin, int64_t end) {
    float sums[after == After::gelu ? STACK * NR : 1];
    for (int64_t last; begin < end; begin = last) {  // one stack after the other
      const int64_t first = begin / panels * stack, count = std::min(stack, rows - first);
      last = std::min(end, (begin / panels + 1) * panels);
      for (int64_t from = 0; from < in; from += part)
        for (int64_t item = begin; item < last; ++item) {
          const int64_t panel = item % panels, depth = std::min(part, in - from);
          const Panel weights{packed + (panel * in + from) * NR, NR, depth, in * NR};  // ahead: the next panel
          const V bias_left = V::loadu(bias + panel * NR), bias_right = V::loadu(bias + panel * NR + L);
          Y* to = y + first * out + panel * NR;
          tiles<T>(count, x + first * in + from, in, weights, [&](int64_t r, V left, V right) {
            if (from == 0) left = left + bias_left, right = right + bias_right;
            if constexpr (after == After::add) {
              float* at = to + r * out;
              (left + V::loadu(at)).store(at), (right + V::loadu(at + L)).store(at + L);
            } else if constexpr (after == After::gelu) {
              left.store(sums + r * NR), right.store(sums + r * NR + L);
            } else {
              T::store(left, right, to + r * out);
            }
          });
          if constexpr (after == After::gelu)  // at last, while they are near: a call in between would spill the sums
            for (int64_t r = 0; r < count; ++r)
              T::store(T::gelu(V::loadu(sums + r * NR)), T::gelu(V::loadu(sums + r * NR + L)), to + r * out);
        }
    }
  });
}

// Rows to mean 0 and variance 1.
template <typename T>
void normalise(const float* x, int64_t rows, int64_t width, float eps, typename T::Value* y) {
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
      for (int64_t k = 0; k < width; k += NR)
        T::store((V::loadu(from + k) - mean) * scale, (V::loadu(from + k + L) - mean) * scale, y + r * width + k);
    }
  });
}

// One stream's keys [heads, d / LANE, step >= tokens, LANE] and values [heads, tokens / LANE, d, LANE].
template <typename T>
struct Scene {
  typename T::Value *keys, *values;
  int64_t heads, d, tokens, step;

  int64_t deep() const { return (tokens + T::LANE - 1) / T::LANE; }  // lanes of a column of values
  auto* keys_of(int64_t head) const { return keys + head * d * step; }
  auto* values_of(int64_t head) const { return values + head * deep() * T::LANE * d; }
};

// Keys and values of some rows; null is all tokens in order. qkv [rows, 3 * heads * d].
template <typename T>
void keep(const typename T::Value* qkv, int64_t rows, const int64_t* places, const Scene<T>& scene) {
  const int64_t width = scene.heads * scene.d;
  at::parallel_for(0, scene.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head)
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t token = places ? places[r] : r, next = places && r + 1 < rows ? places[r + 1] : token;
        const auto *key = qkv + r * 3 * width + width + head * scene.d, *value = key + width;
        auto *to = scene.keys_of(head) + token * T::LANE, *soon = scene.keys_of(head) + next * T::LANE;
        for (int64_t k = 0; k < scene.d; k += T::LANE, to += scene.step * T::LANE, soon += scene.step * T::LANE) {
          __builtin_prefetch(soon, 1);  // every one in a line of its own
          std::copy_n(key + k, T::LANE, to);
        }
        auto* at = scene.values_of(head) + token / T::LANE * T::LANE * scene.d + token % T::LANE;
        for (int64_t k = 0; k < scene.d; ++k) at[k * T::LANE] = value[k];
      }
  });
}

// Scores of one query as shares of 1, but for the factor that is given back. They begin where the scores did.
template <typename T>
float softmax(float* scores, int64_t tokens, int64_t padded) {
  std::fill(scores + tokens, scores + padded, NOTHING);
  V top = V::loadu(scores), other = V::loadu(scores + L), sum(0.f);
  for (int64_t n = NR; n < padded; n += NR)
    top = at::vec::maximum(top, V::loadu(scores + n)), other = at::vec::maximum(other, V::loadu(scores + n + L));
  top = at::vec::maximum(top, other);
  top = V(at::vec::vec_reduce_all<float>([](V a, V b) { return at::vec::maximum(a, b); }, top));
  auto* to = reinterpret_cast<typename T::Value*>(scores);  // never ahead of what is read
  for (int64_t n = 0; n < padded; n += NR) {
    const V left = T::exp(V::loadu(scores + n) - top), right = T::exp(V::loadu(scores + n + L) - top);
    T::store(left, right, to + n);
    sum = sum + left + right;
  }
  return 1.f / total(sum);
}

// seen [rows, heads * d]; queries come scaled.
template <typename T>
void attend(const typename T::Value* qkv, int64_t rows, const Scene<T>& scene, typename T::Value* seen) {
  const int64_t width = scene.heads * scene.d, group = alike(rows, QUERIES), groups = (rows + group - 1) / group;
  const int64_t padded = (scene.tokens + NR - 1) / NR * NR;
  at::parallel_for(0, scene.heads * groups, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(group * padded);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t head = item / groups, first = item % groups * group, count = std::min(group, rows - first);
      const float *queries = lanes(qkv + first * 3 * width + head * scene.d), *values = lanes(scene.values_of(head));
      for (int64_t n = 0; n < padded; n += NR) {
        const Panel keys{lanes(scene.keys_of(head)) + n, scene.step, scene.d / T::LANE, NR};
        tiles<T>(count, queries, 3 * width / T::LANE, keys, [&](int64_t r, V left, V right) {
          left.store(&scores[r * padded + n]), right.store(&scores[r * padded + n + L]);
        });
      }
      float share[QUERIES];
      for (int64_t r = 0; r < count; ++r) share[r] = softmax<T>(&scores[r * padded], scene.tokens, padded);
      for (int64_t k = 0; k < scene.d; k += NR)
        tiles<T>(count, scores.data(), padded, Panel{values + k, scene.d, scene.deep(), NR}, [&](int64_t r, V left, V right) {
          T::store(left * V(share[r]), right * V(share[r]), seen + (first + r) * width + head * scene.d + k);
        });
    }
  });
}

template <typename T>
constexpr at::ScalarType TYPE = c10::CppTypeToScalarType<typename T::Value>::value;

const float* floats(const Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kFloat, name, ": expected contiguous float32");
  return tensor.const_data_ptr<float>();
}

template <typename T>
const float* weights_of(const Tensor& packed) {
  TORCH_CHECK(packed.is_contiguous() && packed.scalar_type() == TYPE<T>, "weights: expected contiguous ", TYPE<T>);
  return lanes(packed.const_data_ptr<typename T::Value>());
}

template <typename T>
Scene<T> scene_of(const Tensor& keys, const Tensor& values, int64_t tokens) {
  const int64_t heads = keys.size(0), d = keys.size(1) * T::LANE, step = keys.size(2);
  const Scene<T> scene{keys.mutable_data_ptr<typename T::Value>(), values.mutable_data_ptr<typename T::Value>(), heads, d, tokens, step};
  TORCH_CHECK(keys.is_contiguous() && keys.sizes() == at::IntArrayRef({heads, d / T::LANE, step, T::LANE}) && step % NR == 0 && step >= tokens, "keys: expected panels of ", NR, " tokens");
  TORCH_CHECK(values.is_contiguous() && values.sizes() == at::IntArrayRef({heads, scene.deep(), d, T::LANE}), "values: expected [heads, tokens / lane, d, lane]");
  return scene;
}

int64_t panel() { return NR; }

// float32 or bfloat16 [out, in] as [out / NR, in / LANE, NR, LANE].
Tensor pack(const Tensor& weight_OI) {
  const int64_t out = weight_OI.size(0), in = weight_OI.size(1), lane = weight_OI.scalar_type() == at::kBFloat16 ? 2 : 1;
  TORCH_CHECK(out % NR == 0 && in % lane == 0, "weight: expected a multiple of ", NR, " outputs; found ", out);
  return weight_OI.view({out / NR, NR, in / lane, lane}).transpose(1, 2).contiguous();
}

template <typename T>
Tensor block_of(
    const Tensor& x_RD, at::TensorList weights, double eps1, double eps2, at::IntArrayRef counts,
    const c10::List<std::optional<Tensor>>& rows, at::IntArrayRef tokens, at::TensorList keys, at::TensorList values) {
  using Value = typename T::Value;
  const int64_t R = x_RD.size(0), D = x_RD.size(1), A = weights[1].size(0) / 3, H = weights[5].size(0);
  const float *w[4], *b[4];
  for (int i = 0; i < 4; ++i) w[i] = weights_of<T>(weights[2 * i]), b[i] = floats(weights[2 * i + 1], "biases");
  const auto inner = x_RD.options().dtype(TYPE<T>);
  const Tensor out = at::empty({R, D}, x_RD.options()), normed = at::empty({R, D}, inner);
  const Tensor qkv = at::empty({R, 3 * A}, inner), seen = at::empty({R, A}, inner), hidden = at::empty({R, H}, inner);
  const float* x = floats(x_RD, "x");
  float* y = out.mutable_data_ptr<float>();
  Value *n = normed.mutable_data_ptr<Value>(), *q = qkv.mutable_data_ptr<Value>();
  Value *s = seen.mutable_data_ptr<Value>(), *h = hidden.mutable_data_ptr<Value>();
  std::copy_n(x, R * D, y);
  normalise<T>(x, R, D, float(eps1), n);
  linear<T, After::store>(lanes(n), R, D / T::LANE, w[0], b[0], 3 * A, q);
  int64_t first = 0;
  for (size_t part = 0; part < counts.size(); first += counts[part++]) {
    const Scene<T> scene = scene_of<T>(keys[part], values[part], tokens[part]);
    const std::optional<Tensor> chosen = rows.get(part);
    const int64_t* places = chosen ? chosen->const_data_ptr<int64_t>() : nullptr;
    TORCH_CHECK((chosen ? chosen->numel() : scene.tokens) == counts[part] && scene.heads * scene.d == A, "rows don't fit their scene");
    for (int64_t r = 0; places && r < counts[part]; ++r)
      TORCH_CHECK(places[r] >= 0 && places[r] < scene.tokens, "rows: expected 0 to ", scene.tokens - 1, "; found ", places[r]);
    keep<T>(q + first * 3 * A, counts[part], places, scene);
    attend<T>(q + first * 3 * A, counts[part], scene, s + first * A);
  }
  TORCH_CHECK(first == R, "rows: expected ", R, "; found ", first);
  linear<T, After::add>(lanes(s), R, A / T::LANE, w[1], b[1], D, y);
  normalise<T>(y, R, D, float(eps2), n);
  linear<T, After::gelu>(lanes(n), R, D / T::LANE, w[2], b[2], H, h);
  linear<T, After::add>(lanes(h), R, H / T::LANE, w[3], b[3], D, y);
  return out;
}

Tensor run_block(
    const Tensor& x_RD, at::TensorList weights, double eps1, double eps2, at::IntArrayRef counts,
    const c10::List<std::optional<Tensor>>& rows, at::IntArrayRef tokens, at::TensorList keys, at::TensorList values) {
#ifdef __AVX512BF16__
  if (weights[0].scalar_type() == at::kBFloat16)
    return block_of<Bfloat16>(x_RD, weights, eps1, eps2, counts, rows, tokens, keys, values);
#endif
  return block_of<Float32>(x_RD, weights, eps1, eps2, counts, rows, tokens, keys, values);
}

// float32 [rows, in] to float32 [rows, out], through the type of the weights.
Tensor apply_linear(const Tensor& x_RI, const Tensor& packed, const Tensor& bias_O) {
  const int64_t rows = x_RI.size(0), in = x_RI.size(1), out = bias_O.size(0);
  TORCH_CHECK(x_RI.is_contiguous() && packed.numel() == in * out, "x: expected contiguous rows of ", packed.numel() / out, "; found ", in);
  const Tensor y = at::zeros({rows, out}, bias_O.options());
#ifdef __AVX512BF16__
  if (packed.scalar_type() == at::kBFloat16) {
    const Tensor rounded = x_RI.to(at::kBFloat16);
    linear<Bfloat16, After::add>(lanes(rounded.const_data_ptr<at::BFloat16>()), rows, in / Bfloat16::LANE, weights_of<Bfloat16>(packed), floats(bias_O, "bias"), out, y.mutable_data_ptr<float>());
    return y;
  }
#endif
  linear<Float32, After::add>(floats(x_RI, "x"), rows, in, weights_of<Float32>(packed), floats(bias_O, "bias"), out, y.mutable_data_ptr<float>());
  return y;
}

}  // namespace

TORCH_LIBRARY(deltascene, m) {
  m.def("panel() -> int", &panel);
  m.def("pack(Tensor weight) -> Tensor", &pack);
  m.def("linear(Tensor x, Tensor packed, Tensor bias) -> Tensor", &apply_linear);
  m.def(
      "run_block(Tensor x, Tensor[] weights, float eps1, float eps2, int[] counts, Tensor?[] rows, int[] tokens, Tensor(a!)[] keys, "
      "Tensor(b!)[] values) -> Tensor",
      &run_block);
}
