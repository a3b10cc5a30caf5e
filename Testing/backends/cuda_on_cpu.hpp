// Runs a CUDA kernel's program text on a processor, for tests: one block after the other, its threads as fibres that
// take turns, the instructions of a warp by exchange between them. Half precision is the compiler's _Float16.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__
using std::min;

struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct float2 { float x, y; };
struct dim3 { int x, y, z; };
static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static const int ALL_THREADS = 256, FIBRE_BYTES = 1 << 18;
static dim3 threadIdx, blockIdx, gridDim;
alignas(16) uint4 memory[(228 << 10) / 16];

static ucontext_t fibres[ALL_THREADS], scheduler;
static bool finished[ALL_THREADS];
static unsigned deposits[ALL_THREADS][6];
static int arrived[ALL_THREADS / 32 + 1], round_of[ALL_THREADS / 32 + 1];

// Wait until so many threads have come to a meeting.
static void meet(int meeting, int expected) {
    int mine = threadIdx.x, now = round_of[meeting];
    if (++arrived[meeting] == expected) {
        arrived[meeting] = 0;
        round_of[meeting]++;
    }
    while (round_of[meeting] == now) {
        swapcontext(&fibres[mine], &scheduler);
        threadIdx.x = mine;
    }
}

static void __syncthreads() { meet(ALL_THREADS / 32, ALL_THREADS); }

// Show values to the warp, compute something from all of them, and let the others finish, too.
template <class Compute> static void together(const unsigned *values, int count, Compute compute) {
    int mine = threadIdx.x;
    std::copy(values, values + count, deposits[mine]);
    meet(mine / 32, 32);
    compute(deposits + mine / 32 * 32, mine % 32);
    meet(mine / 32, 32);
}

template <class Value> static Value __shfl_xor_sync(unsigned, Value value, int distance) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    together(&bits, 1, [&](unsigned (*all)[6], int lane) { std::memcpy(&value, all[lane ^ distance], 4); });
    return value;
}

static float half_of(unsigned both, int which) {
    unsigned short bits = (unsigned short)(which ? both >> 16 : both);
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return (float)value;
}

static float2 unpacked(unsigned both) { return {half_of(both, 0), half_of(both, 1)}; }

static unsigned packed(float low, float high) {
    _Float16 halves[2] = {(_Float16)low, (_Float16)high};
    unsigned both;
    std::memcpy(&both, halves, 4);
    return both;
}

// mma.m16n8k16: in registers a[0..3] a lane has two values of rows g and g + 8, in k and in k + 8.
static void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    together(mine, 6, [&](unsigned (*all)[6], int lane) {
        for (int value = 0; value < 4; value++) {
            int row = value / 2, column = lane % 4 * 2 + value % 2;
            for (int k = 0; k < 16; k++) {
                int place = k % 8 / 2, high = k / 8, which = k % 2;
                float left = half_of(all[lane / 4 * 4 + place][row + 2 * high], which);
                sum[value] += left * half_of(all[column * 4 + place][4 + high], which);
            }
        }
    });
}

// ldmatrix.x4: lane l gives the place of row l % 8 of matrix l / 8.
static void load_matrix(unsigned (&a)[4], const char *place) {
    unsigned halves[2];
    std::memcpy(halves, &place, 8);
    together(halves, 2, [&](unsigned (*all)[6], int lane) {
        for (int matrix = 0; matrix < 4; matrix++) {
            const char *row;
            std::memcpy(&row, all[matrix * 8 + lane / 4], 8);
            std::memcpy(&a[matrix], row + lane % 4 * 4, 4);
        }
    });
}
