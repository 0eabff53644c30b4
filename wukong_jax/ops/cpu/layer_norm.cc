// An interaction layer's last step: LN(concat(parts) + residual), each embedding of d values by itself, one pass over
// memory forward and one backward. The backward pass computes the sums and statistics again from the inputs.

#include <cmath>
#include <vector>

#include "parallel.h"
#include "tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace wukong {

constexpr int kMostChunks = 16;  // fixed, so that the sums over examples do not depend on the threads

// One of the arrays [batch, m, d] that lie behind each other along m.
struct Part {
  const float* values;
  float* gradient;
  int m;
};

static bool parts_of(ffi::RemainingArgs& arguments, std::size_t count, std::vector<Part>& parts) {
  for (std::size_t i = 0; i < count; ++i) {
    auto part = arguments.get<ffi::BufferR3<ffi::F32>>(i);
    if (!part.has_value()) return false;
    parts.push_back({part->typed_data(), nullptr, int(part->dimensions()[1])});
  }
  return true;
}

// out = values + residual, centred; returns 1 / standard deviation.
static float centred(int d, const float* __restrict values, const float* __restrict residual, float epsilon,
                     float* __restrict out) {
  float sum = 0, squares = 0;
  for (int i = 0; i < d; ++i) {
    out[i] = residual ? values[i] + residual[i] : values[i];
    sum += out[i];
  }
  const float mean = sum / d;
  for (int i = 0; i < d; ++i) {
    out[i] -= mean;
    squares += out[i] * out[i];
  }
  return 1 / std::sqrt(squares / d + epsilon);
}

// Calls row(part, offset of the embedding in its part, offset in the whole) for the embeddings of one example.
template <typename Row>
static void for_each_embedding(const std::vector<Part>& parts, std::ptrdiff_t example, int outputs, int d, Row row) {
  std::ptrdiff_t whole = example * outputs * d;
  for (const Part& part : parts)
    for (std::ptrdiff_t i = 0; i < part.m; ++i, whole += d) row(part, (example * part.m + i) * d, whole);
}

static ffi::Error normalise(ffi::ThreadPool pool, ffi::BufferR1<ffi::F32> scale, ffi::BufferR1<ffi::F32> bias,
                            ffi::RemainingArgs rest, ffi::Result<ffi::BufferR3<ffi::F32>> result, float epsilon,
                            bool residual) {
  std::vector<Part> parts;
  const std::size_t count = rest.size() - residual;
  if (!parts_of(rest, count, parts)) return ffi::Error::InvalidArgument("a part is not float32");
  if (residual && !rest.get<ffi::BufferR3<ffi::F32>>(count).has_value())
    return ffi::Error::InvalidArgument("the residual is not float32");
  const float* beside = residual ? rest.get<ffi::BufferR3<ffi::F32>>(count)->typed_data() : nullptr;
  const int batch = int(result->dimensions()[0]), outputs = int(result->dimensions()[1]);
  const int d = int(result->dimensions()[2]), chunks = std::min(kMostChunks, batch);
  const float *gain = scale.typed_data(), *offset = bias.typed_data();
  float* out = result->typed_data();
  for_each_chunk(pool, chunks, [&](int chunk) {
    std::vector<float> row(d);
    for (std::int64_t e = std::int64_t(batch) * chunk / chunks; e < std::int64_t(batch) * (chunk + 1) / chunks; ++e)
      for_each_embedding(parts, e, outputs, d, [&](const Part& part, std::ptrdiff_t own, std::ptrdiff_t whole) {
        const float inverse = centred(d, part.values + own, beside ? beside + whole : nullptr, epsilon, row.data());
        float* __restrict to = out + whole;
        const float* __restrict from = row.data();
        for (int i = 0; i < d; ++i) to[i] = from[i] * inverse * gain[i] + offset[i];
      });
  });
  return ffi::Error::Success();
}

static void embedding_backward(int d, const float* __restrict gradient, const float* __restrict scale, float inverse,
                               float* __restrict centred, float* __restrict scaled, float* __restrict to_scale,
                               float* __restrict to_bias) {
  float average = 0, along = 0;
  for (int i = 0; i < d; ++i) {
    const float normal = centred[i] * inverse;
    to_scale[i] += gradient[i] * normal;
    to_bias[i] += gradient[i];
    scaled[i] = gradient[i] * scale[i];
    average += scaled[i];
    along += scaled[i] * normal;
    centred[i] = normal;
  }
  average /= d, along /= d;
  for (int i = 0; i < d; ++i) scaled[i] = inverse * (scaled[i] - average - centred[i] * along);
}

// Results: gradients to scale, bias, every part and, with `residual`, the residual.
static ffi::Error normalise_backward(ffi::ThreadPool pool, ffi::BufferR1<ffi::F32> scale,
                                     ffi::BufferR3<ffi::F32> gradient, ffi::RemainingArgs rest,
                                     ffi::Result<ffi::BufferR1<ffi::F32>> to_scale,
                                     ffi::Result<ffi::BufferR1<ffi::F32>> to_bias, ffi::RemainingRets results,
                                     float epsilon, bool residual) {
  std::vector<Part> parts;
  const std::size_t count = rest.size() - residual;
  if (!parts_of(rest, count, parts)) return ffi::Error::InvalidArgument("a part is not float32");
  for (std::size_t i = 0; i < count; ++i) parts[i].gradient = (*results.get<ffi::BufferR3<ffi::F32>>(i))->typed_data();
  if (residual && !rest.get<ffi::BufferR3<ffi::F32>>(count).has_value())
    return ffi::Error::InvalidArgument("the residual is not float32");
  const float* beside = residual ? rest.get<ffi::BufferR3<ffi::F32>>(count)->typed_data() : nullptr;
  float* to_beside = residual ? (*results.get<ffi::BufferR3<ffi::F32>>(count))->typed_data() : nullptr;
  const int batch = int(gradient.dimensions()[0]), outputs = int(gradient.dimensions()[1]);
  const int d = int(gradient.dimensions()[2]), chunks = std::min(kMostChunks, batch);
  const float *gain = scale.typed_data(), *down = gradient.typed_data();
  std::vector<float> sums(std::size_t(2) * chunks * d, 0.0f);
  for_each_chunk(pool, chunks, [&](int chunk) {
    std::vector<float> row(d), scaled(d), own_sums(2 * std::size_t(d), 0.0f);
    for (std::int64_t e = std::int64_t(batch) * chunk / chunks; e < std::int64_t(batch) * (chunk + 1) / chunks; ++e)
      for_each_embedding(parts, e, outputs, d, [&](const Part& part, std::ptrdiff_t own, std::ptrdiff_t whole) {
        const float inverse = centred(d, part.values + own, beside ? beside + whole : nullptr, epsilon, row.data());
        embedding_backward(d, down + whole, gain, inverse, row.data(), scaled.data(), own_sums.data(),
                           own_sums.data() + d);
        std::memcpy(part.gradient + own, scaled.data(), d * sizeof(float));
        if (to_beside) std::memcpy(to_beside + whole, scaled.data(), d * sizeof(float));
      });
    std::copy(own_sums.begin(), own_sums.end(), sums.begin() + std::size_t(2) * chunk * d);
  });
  float *of_scale = to_scale->typed_data(), *of_bias = to_bias->typed_data();
  for (int i = 0; i < d; ++i) of_scale[i] = of_bias[i] = 0;
  for (int chunk = 0; chunk < chunks; ++chunk)
    for (int i = 0; i < d; ++i) {
      of_scale[i] += sums[std::size_t(2) * chunk * d + i];
      of_bias[i] += sums[std::size_t(2) * chunk * d + d + i];
    }
  return ffi::Error::Success();
}

}  // namespace wukong

XLA_FFI_DEFINE_HANDLER_SYMBOL(WukongLayerNormForward, wukong::normalise,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::BufferR1<ffi::F32>>()
                                  .Arg<ffi::BufferR1<ffi::F32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::BufferR3<ffi::F32>>()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("residual"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(WukongLayerNormBackward, wukong::normalise_backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::BufferR1<ffi::F32>>()
                                  .Arg<ffi::BufferR3<ffi::F32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::BufferR1<ffi::F32>>()
                                  .Ret<ffi::BufferR1<ffi::F32>>()
                                  .RemainingRets()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("residual"));
