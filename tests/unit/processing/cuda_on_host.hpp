// Enough of CUDA to run kernels of one-dimensional blocks on a processor: each thread of a block is
// a thread of the host, blocks run one after another.
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>
using std::isfinite;
using std::max;
using std::min;

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct int2 { int x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
struct Index { int x, y; };

static thread_local Index threadIdx, blockIdx;
static std::unique_ptr<std::barrier<>> block_barrier;
static std::vector<std::unique_ptr<std::barrier<>>> warp_barriers;
static int exchanged[1024];

#define __global__
#define __device__ static
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

inline void __syncthreads() { block_barrier->arrive_and_wait(); }

inline int __shfl_up_sync(unsigned, int value, int step) {
    int me = threadIdx.x, lane = me % 32;
    auto& warp = *warp_barriers[me / 32];
    exchanged[me] = value;
    warp.arrive_and_wait();
    int other = lane >= step ? exchanged[me - step] : value;
    warp.arrive_and_wait();
    return other;
}

// Only whether to skip work for the whole warp depends on it, so each thread may decide alone.
inline bool __any_sync(unsigned, bool mine) { return mine; }

template <typename Kernel> void launch(int blocks, int rows, int threads, Kernel kernel) {
    block_barrier = std::make_unique<std::barrier<>>(threads);
    warp_barriers.clear();
    for (int w = 0; w < threads / 32; w++)
        warp_barriers.push_back(std::make_unique<std::barrier<>>(32));
    std::vector<std::thread> team;
    for (int t = 0; t < threads; t++)
        team.emplace_back([=] {
            for (int y = 0; y < rows; y++)
                for (int x = 0; x < blocks; x++) {
                    threadIdx = {t, 0};
                    blockIdx = {x, y};
                    kernel();
                    __syncthreads();
                }
        });
    for (auto& thread : team) thread.join();
}
