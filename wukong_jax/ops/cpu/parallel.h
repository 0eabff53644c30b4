// A loop over chunks on XLA's own threads, in which the calling thread takes part.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace wukong {

// Runs work(0) ... work(chunks - 1) and returns when all are done. The caller takes chunks too, so the loop ends even
// if every thread of the pool waits in a loop like this one; a helper that comes late finds nothing left to take.
inline void for_each_chunk(xla::ffi::ThreadPool& pool, int chunks, const std::function<void(int)>& work) {
  struct Shared {
    const std::function<void(int)>* work;
    int chunks;
    std::atomic<int> next{0}, done{0};
    void run() {
      for (int chunk; (chunk = next.fetch_add(1)) < chunks;) {
        (*work)(chunk);
        done.fetch_add(1, std::memory_order_release);
      }
    }
  };
  auto shared = std::make_shared<Shared>();
  shared->work = &work;
  shared->chunks = chunks;
  const int helpers = std::min<int>(pool.num_threads(), chunks) - 1;
  for (int i = 0; i < helpers; ++i) pool.Schedule([shared] { shared->run(); });
  shared->run();
  while (shared->done.load(std::memory_order_acquire) < chunks) std::this_thread::yield();
}

}  // namespace wukong
