"""CUDA C of the gridding engine.

The text is compiled at run time by NVRTC for the device at hand. `_cupy_twin` does the same
arithmetic with NumPy.

`spread` is written from the grid's side. A block of 256 threads owns a tile of 16 x 16 cells of
eight pairs of slices, and a thread one cell, whose sums stay in its registers. The block finds,
for each angle, which frequencies reach its tile, brings them to shared memory with the 16 slices
innermost, and each warp adds those that reach its 8 x 4 cells. Nothing is added atomically and the
order of the additions is fixed, so equal input gives equal bits.
"""

from __future__ import annotations

from apsber_bluesky.processing.accelerators._backend import PAIRS
from apsber_bluesky.processing.accelerators._geometry import WIDTH

TILE = 16
"""Cells along each edge of a tile of `spread`."""
THREADS = 256
"""Threads of a block of any of the kernels."""
NAMES = ("pack", "scale", "cut", "spread", "crop")
"""Names of the kernels."""

_DEFINITIONS = f"""
#define TILE {TILE}
#define THREADS {THREADS}
#define PAIRS {PAIRS}
#define HALF {WIDTH / 2}f
"""

_FILTER = r"""
typedef long long int64;

// Rows 2p and 2p+1 of each projection become the real and imaginary part of pair p, padded with 0.
extern "C" __global__ void pack(const float* projections, float2* rows, int* wrong,
                                int pairs, int n,
                                int slices, int columns, int padded) {
    int64 index = (int64)blockIdx.x * THREADS + threadIdx.x;
    if (index >= (int64)pairs * n * padded) return;
    int u = (int)(index % padded);
    int a = (int)(index / padded % n);
    int p = (int)(index / padded / n);
    float2 value = make_float2(0.0f, 0.0f);
    if (u < columns) {
        const float* row = projections + ((int64)a * slices + 2 * p) * columns + u;
        if (2 * p < slices) value.x = row[0];
        if (2 * p + 1 < slices) value.y = row[columns];
        if (!isfinite(value.x) || !isfinite(value.y)) *wrong = 1;
    }
    rows[index] = value;
}

extern "C" __global__ void scale(float2* rows, const float* response, int64 count, int padded) {
    int64 index = (int64)blockIdx.x * THREADS + threadIdx.x;
    if (index >= count) return;
    float factor = response[index % padded];
    rows[index].x *= factor;
    rows[index].y *= factor;
}

// What the filter smeared beyond the detector is cut back to `period` samples; those before the
// first pixel come last.
extern "C" __global__ void cut(const float2* rows, float2* shorter, int64 count, int columns,
                               int padded, int period) {
    int64 index = (int64)blockIdx.x * THREADS + threadIdx.x;
    if (index >= count) return;
    int u = (int)(index % period);
    int after = period - (period - columns) / 2;
    shorter[index] = rows[index / period * padded + (u < after ? u : padded - period + u)];
}
"""

_SPREAD = r"""
#define STAGE 128
#define ROW 20                    // 16 floats, and 4 that keep the banks of shared memory apart

// Sum of the values of the threads up to and with this one, and of all of them.
__device__ int scan(int value, int* sums, int* total) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, value, step);
        if (lane >= step) value += other;
    }
    if (lane == 31) sums[warp] = value;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < THREADS / 32; w++) {
        if (w < warp) before += sums[w];
        all += sums[w];
    }
    *total = all;
    __syncthreads();
    return before + value;
}

// Narrow low..high to the m for which m * step lies between two bounds.
__device__ void narrow(double step, double from, double to, double* low, double* high) {
    if (fabs(step) < 1e-9) {
        if (from > 0.0 || to < 0.0) *high = *low - 1.0;
        return;
    }
    double one = from / step, other = to / step;
    *low = fmax(*low, fmin(one, other));
    *high = fmin(*high, fmax(one, other));
}

extern "C" __global__ void spread(const float2* spectra, const double* steps, const float* weights,
                                  const float2* turn, const int* tiles, float2* grid, int pairs,
                                  int angles, int64 pitch, int period, int size, float beta) {
    __shared__ __align__(16) float values[STAGE * ROW];
    __shared__ float2 place[STAGE];
    __shared__ int2 sample[STAGE];
    __shared__ int ends[THREADS];
    __shared__ int lowest[THREADS];
    __shared__ int sums[THREADS / 32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int left = tiles[2 * blockIdx.x], top = tiles[2 * blockIdx.x + 1];
    float x = (float)(warp % 2 * 8 + lane % 8), y = (float)(warp / 2 * 4 + lane / 8);
    int first = blockIdx.y * PAIRS;
    int highest = (period - 1) / 2;
    double reach = (double)highest * size / period;
    float sum[2 * PAIRS];
    for (int s = 0; s < 2 * PAIRS; s++) sum[s] = 0.0f;
    bool any = false;

    for (int shift = 0; shift < 9; shift++) {
        // The grid is periodic: samples at one edge reach cells at the other.
        double ox = left + (shift % 3 - 1) * (double)size;
        double oy = top + (shift / 3 - 1) * (double)size;
        double x0 = ox - HALF, x1 = ox + TILE - 1 + HALF, y0 = oy - HALF, y1 = oy + TILE - 1 + HALF;
        if (x0 > reach || x1 < -reach || y0 > reach || y1 < -reach) continue;
        for (int base = 0; base < angles; base += THREADS) {
            int mine = base + threadIdx.x;
            double low = -highest, high = highest;
            if (mine < angles) {
                narrow(steps[2 * mine], x0, x1, &low, &high);
                narrow(steps[2 * mine + 1], y0, y1, &low, &high);
            }
            int m0 = (int)ceil(low), m1 = (int)floor(high);
            int count = mine < angles && m1 >= m0 ? m1 - m0 + 1 : 0, total;
            int end = scan(count, sums, &total);
            ends[threadIdx.x] = end;
            lowest[threadIdx.x] = m0;
            __syncthreads();
            any = any || total > 0;
            for (int begin = 0; begin < total; begin += STAGE) {
                int staged = min(STAGE, total - begin);
                if (threadIdx.x < staged) {
                    int number = begin + threadIdx.x, from = 0, to = THREADS - 1;
                    while (from < to) {
                        int middle = (from + to) / 2;
                        if (ends[middle] > number) to = middle; else from = middle + 1;
                    }
                    int m = lowest[from] + number - (from > 0 ? ends[from - 1] : 0);
                    int angle = base + from;
                    place[threadIdx.x] = make_float2((float)(m * steps[2 * angle] - ox),
                                                     (float)(m * steps[2 * angle + 1] - oy));
                    sample[threadIdx.x] = make_int2(angle, m < 0 ? m + period : m);
                }
                __syncthreads();
                for (int item = threadIdx.x; item < STAGE * PAIRS; item += THREADS) {
                    int which = item % STAGE, pair = item / STAGE;
                    if (which >= staged) continue;
                    float2 value = make_float2(0.0f, 0.0f);
                    if (first + pair < pairs) {
                        int2 at = sample[which];
                        float2 raw = spectra[(first + pair) * pitch + (int64)at.x * period + at.y];
                        float2 phase = turn[at.y];
                        float weight = weights[at.x];
                        value.x = weight * (raw.x * phase.x - raw.y * phase.y);
                        value.y = weight * (raw.x * phase.y + raw.y * phase.x);
                    }
                    values[which * ROW + 2 * pair] = value.x;
                    values[which * ROW + 2 * pair + 1] = value.y;
                }
                __syncthreads();
                for (int which = 0; which < staged; which++) {
                    float dx = (x - place[which].x) / HALF, dy = (y - place[which].y) / HALF;
                    float wx = 1.0f - dx * dx, wy = 1.0f - dy * dy;
                    bool near = wx > 0.0f && wy > 0.0f;
                    if (!__any_sync(0xffffffffu, near)) continue;
                    float weight = near ? expf(beta * (sqrtf(wx) + sqrtf(wy) - 2.0f)) : 0.0f;
                    const float4* row = (const float4*)(values + which * ROW);
                    for (int s = 0; s < PAIRS / 2; s++) {
                        float4 four = row[s];
                        sum[4 * s] += weight * four.x;
                        sum[4 * s + 1] += weight * four.y;
                        sum[4 * s + 2] += weight * four.z;
                        sum[4 * s + 3] += weight * four.w;
                    }
                }
                __syncthreads();
            }
        }
    }
    int column = left + (int)x, row = top + (int)y, beyond = size - size / 2;
    if (!any || column >= beyond || row >= beyond) return;
    column = column < 0 ? column + size : column;
    row = row < 0 ? row + size : row;
    for (int pair = 0; pair < PAIRS && first + pair < pairs; pair++) {
        float2* cell = grid + ((int64)(first + pair) * size + row) * size + column;
        cell->x += sum[2 * pair];
        cell->y += sum[2 * pair + 1];
    }
}
"""

_CROP = r"""
// The middle of the transformed grid, freed of the kernel's transform; 0 out of the field of view.
extern "C" __global__ void crop(const float2* grid, const float* correction, float* images,
                                int pairs, int columns, int size, float radius_squared,
                                float scale) {
    int64 index = (int64)blockIdx.x * THREADS + threadIdx.x;
    int64 area = (int64)columns * columns;
    if (index >= pairs * area) return;
    int column = (int)(index % columns), row = (int)(index / columns % columns);
    int64 pair = index / area;
    int x = column - columns / 2, y = row - columns / 2;
    float factor = scale * correction[column] * correction[row];
    if ((float)x * x + (float)y * y > radius_squared) factor = 0.0f;
    float2 value = grid[(pair * size + (y < 0 ? y + size : y)) * size + (x < 0 ? x + size : x)];
    images[2 * pair * area + index % area] = factor * value.x;
    images[(2 * pair + 1) * area + index % area] = factor * value.y;
}
"""

SOURCE = _DEFINITIONS + _FILTER + _SPREAD + _CROP
"""CUDA C of all kernels, without includes."""
