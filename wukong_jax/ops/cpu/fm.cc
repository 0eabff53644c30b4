// Low-rank FM, its LayerNorm and the linear projections of an interaction layer, example by example: an example's X,
// P and FM(X) stay in the first-level cache from the first product to the last.
//
//   P = X^T Y;  Z = LN(flatten(X P)) * scale + bias;  L_i = W_i^T X
//
// The backward pass computes P and X P again: that is cheaper than to read them from memory.

#include <cmath>
#include <vector>

#include "parallel.h"
#include "tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace wukong {

struct Shape {
  int batch, n, d, k;
  int dp, kp;  // d and k filled up to whole vectors
};

struct Linear {
  const float* weight;  // [n, m]
  int m;
};

// Rows of `in` copied to rows of `ld` values, the rest zero.
static void pad_rows(const float* in, int rows, int columns, float* out, int ld) {
  for (int r = 0; r < rows; ++r) {
    std::memcpy(out + std::ptrdiff_t(r) * ld, in + std::ptrdiff_t(r) * columns, columns * sizeof(float));
    std::memset(out + std::ptrdiff_t(r) * ld + columns, 0, (ld - columns) * sizeof(float));
  }
}

static void cut_rows(const float* in, int ld, int rows, int columns, float* out) {
  for (int r = 0; r < rows; ++r)
    std::memcpy(out + std::ptrdiff_t(r) * columns, in + std::ptrdiff_t(r) * ld, columns * sizeof(float));
}

// Memory of one thread, handed out in pieces.
class Scratch {
 public:
  explicit Scratch(std::size_t floats) {
    if (memory().size() < floats) memory().resize(floats);
    next_ = memory().data();
  }
  float* take(std::size_t floats) {
    float* found = next_;
    next_ += floats;
    return found;
  }

 private:
  static std::vector<float>& memory() {
    static thread_local std::vector<float> kept;
    return kept;
  }
  float* next_;
};

// P [d, kp], FM(X) flat [n k] and its mean and 1 / standard deviation.
struct Interactions {
  float *p, *rows, *flat;
  float mean, inverse;
};

static void interactions(const Shape& s, const float* x, const float* y, float epsilon, Interactions& out) {
  const Term project{x, 1, s.dp, y, s.kp, s.n};
  multiply(s.d, s.kp, &project, 1, nullptr, 0, out.p, s.kp);
  const Term interact{x, s.dp, 1, out.p, s.kp, s.d};
  multiply(s.n, s.kp, &interact, 1, nullptr, 0, out.rows, s.kp);
  if (out.flat != out.rows) cut_rows(out.rows, s.kp, s.n, s.k, out.flat);
  const int size = s.n * s.k;
  float sum = 0, squares = 0;
  for (int i = 0; i < size; ++i) sum += out.flat[i];
  out.mean = sum / size;
  for (int i = 0; i < size; ++i) squares += (out.flat[i] - out.mean) * (out.flat[i] - out.mean);
  out.inverse = 1 / std::sqrt(squares / size + epsilon);
}

// r (g - mean(g) - h mean(g h)) with g = scale times the gradient, h the normalised value, r = 1 / standard deviation;
// adds to the sums of the gradients to scale and bias. Writes over `values`.
static void layer_norm_backward(int size, float* __restrict values, float mean, float inverse,
                                const float* __restrict scale, const float* __restrict gradient,
                                float* __restrict to_values, float* __restrict to_scale, float* __restrict to_bias) {
  float average = 0, along = 0;
  for (int i = 0; i < size; ++i) {
    const float normal = (values[i] - mean) * inverse, scaled = gradient[i] * scale[i];
    to_scale[i] += gradient[i] * normal;
    to_bias[i] += gradient[i];
    average += scaled;
    along += scaled * normal;
    values[i] = normal;
    to_values[i] = scaled;
  }
  average /= size, along /= size;
  for (int i = 0; i < size; ++i) to_values[i] = inverse * (to_values[i] - average - values[i] * along);
}

// Chunks are of a fixed number, so that sums over examples do not depend on the number of threads.
constexpr int kChunks = 16;

static int first_of(int chunk, int chunks, int batch) { return int(std::int64_t(batch) * chunk / chunks); }

static ffi::Error check(const char* what, bool holds) {
  return holds ? ffi::Error::Success() : ffi::Error::InvalidArgument(what);
}

static ffi::Error forward(ffi::ThreadPool pool, ffi::BufferR3<ffi::F32> x, ffi::BufferR2<ffi::F32> y,
                          ffi::BufferR1<ffi::F32> scale, ffi::BufferR1<ffi::F32> bias, ffi::RemainingArgs weights,
                          ffi::Result<ffi::BufferR2<ffi::F32>> z, ffi::RemainingRets compressed, float epsilon) {
  Shape s{int(x.dimensions()[0]), int(x.dimensions()[1]), int(x.dimensions()[2]), int(y.dimensions()[1]), 0, 0};
  s.dp = padded(s.d), s.kp = padded(s.k);
  std::vector<Linear> linear;
  std::vector<float*> outputs;
  int widest = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    auto weight = weights.get<ffi::BufferR2<ffi::F32>>(i);
    auto out = compressed.get<ffi::BufferR3<ffi::F32>>(i);
    if (!weight.has_value() || !out.has_value()) return check("a weight or result is not float32", false);
    linear.push_back({weight->typed_data(), int(weight->dimensions()[1])});
    outputs.push_back((*out)->typed_data());
    widest = std::max(widest, linear.back().m);
  }
  std::vector<float> y_rows(std::size_t(s.n) * s.kp);
  pad_rows(y.typed_data(), s.n, s.k, y_rows.data(), s.kp);
  const int chunks = std::max(1, std::min(kChunks, s.batch)), size = s.n * s.k;
  const float *in = x.typed_data(), *gain = scale.typed_data(), *offset = bias.typed_data();
  float* out = z->typed_data();
  for_each_chunk(pool, chunks, [&](int chunk) {
    Scratch scratch(std::size_t(s.n + widest) * s.dp + std::size_t(s.d + 2 * s.n) * s.kp);
    float *wide = scratch.take(s.n * s.dp), *wide_out = scratch.take(widest * s.dp);
    Interactions found{scratch.take(s.d * s.kp), scratch.take(s.n * s.kp), nullptr, 0, 0};
    found.flat = s.k == s.kp ? found.rows : scratch.take(s.n * s.kp);
    for (int e = first_of(chunk, chunks, s.batch); e < first_of(chunk + 1, chunks, s.batch); ++e) {
      const float* own = in + std::ptrdiff_t(e) * s.n * s.d;
      if (s.d != s.dp) pad_rows(own, s.n, s.d, wide, s.dp), own = wide;
      interactions(s, own, y_rows.data(), epsilon, found);
      float* row = out + std::ptrdiff_t(e) * size;
      for (int i = 0; i < size; ++i) row[i] = (found.flat[i] - found.mean) * found.inverse * gain[i] + offset[i];
      for (std::size_t l = 0; l < linear.size(); ++l) {
        const int m = linear[l].m;
        const Term term{linear[l].weight, 1, m, own, s.dp, s.n};
        float* to = outputs[l] + std::ptrdiff_t(e) * m * s.d;
        multiply(m, s.dp, &term, 1, nullptr, 0, s.d == s.dp ? to : wide_out, s.dp);
        if (s.d != s.dp) cut_rows(wide_out, s.dp, m, s.d, to);
      }
    }
  });
  return ffi::Error::Success();
}

// A chunk's sums over its examples: of the gradients to Y, scale, bias and every W.
struct Sums {
  std::vector<float> y, scale, bias;
  std::vector<std::vector<float>> weights;
};

// Arguments behind the fixed ones: every W, the gradient to every W^T X, and with `through` that to X passed on.
static ffi::Error backward(ffi::ThreadPool pool, ffi::BufferR3<ffi::F32> x, ffi::BufferR2<ffi::F32> y,
                           ffi::BufferR1<ffi::F32> scale, ffi::BufferR2<ffi::F32> to_z, ffi::RemainingArgs rest,
                           ffi::Result<ffi::BufferR3<ffi::F32>> to_x, ffi::Result<ffi::BufferR2<ffi::F32>> to_y,
                           ffi::Result<ffi::BufferR1<ffi::F32>> to_scale, ffi::Result<ffi::BufferR1<ffi::F32>> to_bias,
                           ffi::RemainingRets to_weights, float epsilon, bool through) {
  Shape s{int(x.dimensions()[0]), int(x.dimensions()[1]), int(x.dimensions()[2]), int(y.dimensions()[1]), 0, 0};
  s.dp = padded(s.d), s.kp = padded(s.k);
  const std::size_t count = to_weights.size();
  std::vector<Linear> linear;
  std::vector<const float*> gradients;
  std::vector<float*> weight_results;
  int all = 0, widest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    auto weight = rest.get<ffi::BufferR2<ffi::F32>>(i);
    auto gradient = rest.get<ffi::BufferR3<ffi::F32>>(count + i);
    auto result = to_weights.get<ffi::BufferR2<ffi::F32>>(i);
    if (!weight.has_value() || !gradient.has_value() || !result.has_value())
      return check("a weight, gradient or result is not float32", false);
    linear.push_back({weight->typed_data(), int(weight->dimensions()[1])});
    gradients.push_back(gradient->typed_data());
    weight_results.push_back((*result)->typed_data());
    all += linear.back().m;
    widest = std::max(widest, padded(linear.back().m));
  }
  const float* passed = nullptr;
  if (through) {
    auto gradient = rest.get<ffi::BufferR3<ffi::F32>>(2 * count);
    if (!gradient.has_value()) return check("the gradient to X is not float32", false);
    passed = gradient->typed_data();
  }
  std::vector<float> y_rows(std::size_t(s.n) * s.kp);
  pad_rows(y.typed_data(), s.n, s.k, y_rows.data(), s.kp);
  const int chunks = std::max(1, std::min(kChunks, s.batch)), size = s.n * s.k;
  const bool whole = s.d == s.dp;
  const float *in = x.typed_data(), *gain = scale.typed_data(), *down = to_z.typed_data();
  float* out = to_x->typed_data();
  std::vector<Sums> sums(chunks);
  for_each_chunk(pool, chunks, [&](int chunk) {
    Sums& own_sums = sums[chunk];
    own_sums.y.assign(std::size_t(s.n) * s.kp, 0), own_sums.scale.assign(size, 0), own_sums.bias.assign(size, 0);
    for (const Linear& l : linear) own_sums.weights.emplace_back(std::size_t(s.n) * padded(l.m), 0.0f);
    Scratch scratch(std::size_t(3 * s.n + 2 * s.k + all) * s.dp + std::size_t(2 * s.d + 3 * s.n) * s.kp +
                    std::size_t(s.d) * widest + size);
    float *wide = scratch.take(s.n * s.dp), *wide_passed = scratch.take(s.n * s.dp),
          *wide_out = scratch.take(s.n * s.dp), *p_t = scratch.take(s.k * s.dp), *to_p_t = scratch.take(s.k * s.dp),
          *wide_gradients = scratch.take(all * s.dp), *to_p = scratch.take(s.d * s.kp),
          *to_rows = scratch.take(s.n * s.kp), *gradient_t = scratch.take(s.d * widest), *to_flat = scratch.take(size);
    if (!whole) std::fill(p_t, p_t + s.k * s.dp, 0.0f), std::fill(to_p_t, to_p_t + s.k * s.dp, 0.0f);
    std::fill(gradient_t, gradient_t + s.d * widest, 0.0f);
    Interactions found{scratch.take(s.d * s.kp), scratch.take(s.n * s.kp), nullptr, 0, 0};
    found.flat = s.k == s.kp ? found.rows : scratch.take(s.n * s.kp);
    std::vector<Term> terms(2 + count);
    for (int e = first_of(chunk, chunks, s.batch); e < first_of(chunk + 1, chunks, s.batch); ++e) {
      const float* own = in + std::ptrdiff_t(e) * s.n * s.d;
      if (!whole) pad_rows(own, s.n, s.d, wide, s.dp), own = wide;
      interactions(s, own, y_rows.data(), epsilon, found);

      layer_norm_backward(size, found.flat, found.mean, found.inverse, gain, down + std::ptrdiff_t(e) * size, to_flat,
                          own_sums.scale.data(), own_sums.bias.data());
      const float* rows = to_flat;
      if (s.k != s.kp) pad_rows(to_flat, s.n, s.k, to_rows, s.kp), rows = to_rows;

      const Term project{own, 1, s.dp, rows, s.kp, s.n};  // dP = X^T dF
      multiply(s.d, s.kp, &project, 1, nullptr, 0, to_p, s.kp);
      const Term to_left{own, s.dp, 1, to_p, s.kp, s.d};  // dY += X dP
      multiply(s.n, s.kp, &to_left, 1, own_sums.y.data(), s.kp, own_sums.y.data(), s.kp);

      // dX = dF P^T + Y dP^T + sum_i W_i dL_i (+ what comes through X itself)
      transpose(found.p, s.kp, s.d, s.k, p_t, s.dp);
      transpose(to_p, s.kp, s.d, s.k, to_p_t, s.dp);
      terms[0] = {rows, s.kp, 1, p_t, s.dp, s.k};
      terms[1] = {y_rows.data(), s.kp, 1, to_p_t, s.dp, s.k};
      float* next = wide_gradients;
      for (std::size_t l = 0; l < count; ++l) {
        const int m = linear[l].m, mp = padded(m);
        const float* own_gradient = gradients[l] + std::ptrdiff_t(e) * m * s.d;
        transpose(own_gradient, s.d, m, s.d, gradient_t, mp);
        const Term term{own, s.dp, 1, gradient_t, mp, s.d};  // dW += X dL^T
        float* sum = own_sums.weights[l].data();
        multiply(s.n, mp, &term, 1, sum, mp, sum, mp);
        if (!whole) pad_rows(own_gradient, m, s.d, next, s.dp), own_gradient = next, next += m * s.dp;
        terms[2 + l] = {linear[l].weight, m, 1, own_gradient, s.dp, m};
      }
      const float* init = passed ? passed + std::ptrdiff_t(e) * s.n * s.d : nullptr;
      if (passed && !whole) pad_rows(init, s.n, s.d, wide_passed, s.dp), init = wide_passed;
      float* result = out + std::ptrdiff_t(e) * s.n * s.d;
      multiply(s.n, s.dp, terms.data(), int(terms.size()), init, s.dp, whole ? result : wide_out, s.dp);
      if (!whole) cut_rows(wide_out, s.dp, s.n, s.d, result);
    }
  });
  for (int chunk = 1; chunk < chunks; ++chunk) {
    for (std::size_t i = 0; i < sums[0].y.size(); ++i) sums[0].y[i] += sums[chunk].y[i];
    for (int i = 0; i < size; ++i) sums[0].scale[i] += sums[chunk].scale[i], sums[0].bias[i] += sums[chunk].bias[i];
    for (std::size_t l = 0; l < count; ++l)
      for (std::size_t i = 0; i < sums[0].weights[l].size(); ++i) sums[0].weights[l][i] += sums[chunk].weights[l][i];
  }
  cut_rows(sums[0].y.data(), s.kp, s.n, s.k, to_y->typed_data());
  std::memcpy(to_scale->typed_data(), sums[0].scale.data(), size * sizeof(float));
  std::memcpy(to_bias->typed_data(), sums[0].bias.data(), size * sizeof(float));
  for (std::size_t l = 0; l < count; ++l)
    cut_rows(sums[0].weights[l].data(), padded(linear[l].m), s.n, linear[l].m, weight_results[l]);
  return ffi::Error::Success();
}

}  // namespace wukong

XLA_FFI_DEFINE_HANDLER_SYMBOL(WukongFmForward, wukong::forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::BufferR3<ffi::F32>>()
                                  .Arg<ffi::BufferR2<ffi::F32>>()
                                  .Arg<ffi::BufferR1<ffi::F32>>()
                                  .Arg<ffi::BufferR1<ffi::F32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::BufferR2<ffi::F32>>()
                                  .RemainingRets()
                                  .Attr<float>("epsilon"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(WukongFmBackward, wukong::backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::BufferR3<ffi::F32>>()
                                  .Arg<ffi::BufferR2<ffi::F32>>()
                                  .Arg<ffi::BufferR1<ffi::F32>>()
                                  .Arg<ffi::BufferR2<ffi::F32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::BufferR3<ffi::F32>>()
                                  .Ret<ffi::BufferR2<ffi::F32>>()
                                  .Ret<ffi::BufferR1<ffi::F32>>()
                                  .Ret<ffi::BufferR1<ffi::F32>>()
                                  .RemainingRets()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("through"));
