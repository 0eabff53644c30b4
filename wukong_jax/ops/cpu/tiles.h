// Small matrix products on one core: rows of C are held in vector registers while the depth runs by.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

namespace wukong {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRegisters = 24;  // of 32: the rest hold B and a broadcast
#else
constexpr int kLanes = 8, kRegisters = 12;  // of 16
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float))));

inline int padded(int size) { return (size + kLanes - 1) / kLanes * kLanes; }

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }

// One term of a sum of products: A(r, q) = a[r * row + q * column], B row-major with `ldb` values a row.
struct Term {
  const float* a;
  int row, column;
  const float* b;
  int ldb, depth;
};

// C[kRows, kVectors lanes] = init + sum over terms of A B; without init from zero.
template <int kRows, int kVectors>
inline void tile(const Term* terms, int count, int first_row, int first_column, const float* init, int ld_init,
                 float* c, int ldc) {
  Vector sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = init ? load(init + std::ptrdiff_t(first_row + r) * ld_init + first_column + v * kLanes) : Vector{};
  for (int t = 0; t < count; ++t) {
    const Term& term = terms[t];
    const float* a = term.a + std::ptrdiff_t(first_row) * term.row;
    const float* b = term.b + first_column;
    for (int q = 0; q < term.depth; ++q, a += term.column, b += term.ldb) {
      Vector row[kVectors];
      for (int v = 0; v < kVectors; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 32
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) sums[r][v] += a[std::ptrdiff_t(r) * term.row] * row[v];
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      store(c + std::ptrdiff_t(first_row + r) * ldc + first_column + v * kLanes, sums[r][v]);
}

// The last, fewer rows of a panel.
template <int kRows, int kVectors>
inline void last_rows(int rows, const Term* terms, int count, int first_row, int first_column, const float* init,
                      int ld_init, float* c, int ldc) {
  if constexpr (kRows > 0) {
    if (rows == kRows)
      tile<kRows, kVectors>(terms, count, first_row, first_column, init, ld_init, c, ldc);
    else
      last_rows<kRows - 1, kVectors>(rows, terms, count, first_row, first_column, init, ld_init, c, ldc);
  }
}

template <int kVectors>
inline void panel(int rows, const Term* terms, int count, int first_column, const float* init, int ld_init, float* c,
                  int ldc) {
  constexpr int kRows = std::min(kRegisters / kVectors, 16);
  int r = 0;
  for (; r + kRows <= rows; r += kRows)
    tile<kRows, kVectors>(terms, count, r, first_column, init, ld_init, c, ldc);
  last_rows<kRows - 1, kVectors>(rows - r, terms, count, r, first_column, init, ld_init, c, ldc);
}

// C[rows, columns] = init + sum of A B over the terms; columns a multiple of kLanes in every array that is not A.
inline void multiply(int rows, int columns, const Term* terms, int count, const float* init, int ld_init, float* c,
                     int ldc) {
  int column = 0;
  for (; column + 4 * kLanes <= columns; column += 4 * kLanes)
    panel<4>(rows, terms, count, column, init, ld_init, c, ldc);
  if (column + 2 * kLanes <= columns) {
    panel<2>(rows, terms, count, column, init, ld_init, c, ldc);
    column += 2 * kLanes;
  }
  if (column < columns) panel<1>(rows, terms, count, column, init, ld_init, c, ldc);
}

// The lanes of two vectors in turn: a0 b0 a1 b1 ..., from the first half of both or from the second.
template <std::size_t... kIndex>
inline Vector interleave(Vector a, Vector b, std::index_sequence<kIndex...>, bool second) {
  constexpr int kHalf = kLanes / 2;
  return second ? __builtin_shufflevector(a, b, (kIndex / 2 + kHalf + (kIndex % 2) * kLanes)...)
                : __builtin_shufflevector(a, b, (kIndex / 2 + (kIndex % 2) * kLanes)...);
}

// A square of kLanes x kLanes in registers: log2(kLanes) rounds of interleaving row i with row i + kLanes / 2.
inline void transpose_square(const float* in, std::ptrdiff_t ld_in, float* out, std::ptrdiff_t ld_out) {
  constexpr auto kIndices = std::make_index_sequence<kLanes>();
  Vector rows[kLanes], mixed[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) rows[i] = load(in + i * ld_in);
#pragma GCC unroll 4
  for (int span = kLanes; span > 1; span /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      mixed[2 * i] = interleave(rows[i], rows[i + kLanes / 2], kIndices, false);
      mixed[2 * i + 1] = interleave(rows[i], rows[i + kLanes / 2], kIndices, true);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = mixed[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) store(out + i * ld_out, rows[i]);
}

// out[columns, rows] of in[rows, columns].
inline void transpose(const float* in, std::ptrdiff_t ld_in, int rows, int columns, float* out, std::ptrdiff_t ld_out) {
  const int whole_rows = rows / kLanes * kLanes, whole_columns = columns / kLanes * kLanes;
  for (int r = 0; r < whole_rows; r += kLanes)
    for (int c = 0; c < whole_columns; c += kLanes)
      transpose_square(in + r * ld_in + c, ld_in, out + c * ld_out + r, ld_out);
  for (int r = 0; r < rows; ++r)
    for (int c = r < whole_rows ? whole_columns : 0; c < columns; ++c) out[c * ld_out + r] = in[r * ld_in + c];
}

}  // namespace wukong
